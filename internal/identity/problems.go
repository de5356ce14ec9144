package identity

import (
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/problem"
)

// Everything that identity says to a person.

// Codes of Verify's errors.
const (
	CodeMissingToken  = "AuthenticationFailed"
	CodeInvalidToken  = "InvalidAuthenticationToken"
	CodeExpiredToken  = "ExpiredAuthenticationToken"
	CodeWrongAudience = "InvalidAuthenticationTokenAudience"
	CodeWrongIssuer   = "InvalidAuthenticationTokenTenant"
)

// Codes of the errors of ClientCredentials and its kin; they are OAuth's.
const (
	CodeInvalidClient      = "invalid_client"
	CodeUnauthorizedClient = "unauthorized_client"
	CodeInvalidRequest     = "invalid_request"
	CodeInvalidGrant       = "invalid_grant"
	CodeAccessDenied       = "access_denied"
	CodePending            = "authorization_pending"
	CodeSlowDown           = "slow_down"
	CodeExpired            = "expired_token"
	CodeInvalidScope       = "invalid_scope"
	CodeTryLater           = "temporarily_unavailable"
)

const signInAgain = "Get a new token from the token endpoint, and send it as 'Authorization: Bearer <token>'."

func missingToken() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeMissingToken,
		"Authentication failed. The 'Authorization' header is missing or has no bearer token.").WithAdvice(signInAgain)
}

func invalidToken() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidToken, "The access token is invalid.").WithAdvice(signInAgain)
}

func expiredToken(expiry, now time.Time) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeExpiredToken,
		"The access token expiry UTC time '%s' is earlier than current UTC time '%s'.", stamp(expiry), stamp(now)).
		WithAdvice("Get a new token; if it is refused too, compare the clocks of client and server.")
}

func notYetValid(notBefore, now time.Time) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidToken,
		"The access token is valid from the UTC time '%s', which is later than current UTC time '%s'.", stamp(notBefore), stamp(now)).
		WithAdvice("Compare the clocks of client and server.")
}

func wrongAudience(got, allowed []string) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeWrongAudience,
		"The access token has been obtained for wrong audience or resource '%s'. It should exactly match with one of the allowed audiences '%s'.",
		clip(strings.Join(got, "','")), strings.Join(allowed, "','")).
		WithAdvice("Ask the token endpoint for one of the allowed audiences: scope=<audience>/.default.")
}

func wrongIssuer(got, want string) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeWrongIssuer,
		"The access token is from the wrong issuer '%s'. It must match the issuer '%s' of this tenant.", clip(got), want).
		WithAdvice(signInAgain)
}

func principalGone(objectID string) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidToken,
		"The access token is of the principal '%s', which does not exist.", objectID).
		WithAdvice("Sign in as a principal that exists.")
}

func unknownClient(clientID, tenant string) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeUnauthorizedClient,
		"AADSTS700016: Application with identifier '%s' was not found in the directory '%s'.", clip(clientID), tenant).
		WithTarget("client_id").WithAdvice("Check the client id and the tenant.")
}

func wrongSecret(appID string) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidClient,
		"AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '%s'.", appID).
		WithTarget("client_secret").WithAdvice("Check the client secret; make a new one if it is lost.")
}

func expiredCredential(appID string, c Credential) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidClient,
		"AADSTS7000222: The provided client secret keys or certificates for app '%s' are expired (%s, on %s).", appID, c.ID, stamp(c.Expires)).
		WithTarget("client_id").WithAdvice("Make a new one: kluis principal rotate.")
}

func disabledClient(appID string) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeUnauthorizedClient, "AADSTS7000112: Application '%s' is disabled.", appID).
		WithTarget("client_id").WithAdvice("Have an administrator enable it: kluis principal enable.")
}

func principalDisabled(objectID string) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidToken, "The access token is of the principal '%s', which is disabled.", objectID).
		WithAdvice("Have an administrator enable it, or sign in as another.")
}

func tooManyFailures() *problem.Error {
	return problem.New(problem.Unavailable, CodeTryLater,
		"AADSTS50053: Sign-in was tried too many times with wrong credentials, and is refused for a while.").
		WithTarget("client_id").WithAdvice("Correct the credentials, wait a minute and try again.")
}

func badAssertion(cause error) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidClient, "AADSTS50027: JWT token is invalid or malformed: %s.", clip(cause.Error())).
		WithTarget("client_assertion").WithAdvice("Sign a JWT with RS256, PS256 or ES256; its header has x5t#S256 or x5t, its claims are iss, sub, aud, exp and jti.")
}

func unknownCertificate(appID string) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidClient,
		"AADSTS700027: The certificate with identifier used to sign the client assertion is not registered on application '%s'.", appID).
		WithTarget("client_assertion").WithAdvice("Register the certificate: kluis principal rotate --certificate FILE.")
}

func wrongSignature() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidClient, "AADSTS700027: Client assertion failed signature validation.").
		WithTarget("client_assertion").WithAdvice("Sign it with the private key of the certificate that its header names.")
}

func wrongAssertionClient(subject, appID string) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidClient,
		"AADSTS700021: Client assertion application identifier '%s' doesn't match 'client_id' parameter '%s'.", clip(subject), appID).
		WithTarget("client_assertion").WithAdvice("Set iss and sub to the client id.")
}

func wrongAssertionAudience(got, want []string) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidClient,
		"AADSTS700023: Client assertion audience claim '%s' does not match Realm issuer.", clip(strings.Join(got, "','"))).
		WithTarget("client_assertion").WithAdvice("Set aud to the token endpoint: one of %s.", strings.Join(want, ", "))
}

func untimelyAssertion(now time.Time) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidClient,
		"AADSTS700024: Client assertion is not within its valid time range. Current time: %s.", stamp(now)).
		WithTarget("client_assertion").WithAdvice("Let it begin now and end in some minutes, in a day at most; compare the clocks of client and server.")
}

func usedAssertion() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidClient, "AADSTS700027: Client assertion was used before.").
		WithTarget("client_assertion").WithAdvice("Sign a new one, with another jti, for each request.")
}

func missingAudience() *problem.Error {
	return problem.New(problem.Invalid, CodeInvalidScope,
		"AADSTS70011: The provided request must include a 'scope' input parameter that ends in '/.default', or a 'resource'.").
		WithTarget("scope").WithAdvice("Send scope=<audience>/.default.")
}

func authorizationFailed(p Principal, action string, scope armid.ID) *problem.Error {
	return problem.New(problem.Denied, "AuthorizationFailed",
		"The client '%s' with object id '%s' does not have authorization to perform action '%s' over scope '%s' or the scope is invalid. If access was recently granted, please refresh your credentials.",
		p.login(), p.ObjectID, action, scope).
		WithTarget(scope.String()).
		WithAdvice("Have an Owner assign '%s' a role that allows '%s' at this scope or above it.", p.Name, action)
}

func principalNotFound(id string) *problem.Error {
	return problem.New(problem.NotFound, "PrincipalNotFound",
		"Principal %s does not exist in the directory.", clip(id)).
		WithTarget(clip(id)).WithAdvice("Give the object id or the application id of a principal of this tenant.")
}

func builtInPrincipal(p Principal) *problem.Error {
	return problem.New(problem.Conflict, "BuiltInPrincipal",
		"The principal '%s' is part of the product; it can't be changed or deleted.", p.Name).
		WithTarget(p.ObjectID).WithAdvice("To let backups read keys and secrets, give it access to the key vault (kluis keyvault grant-backup).")
}

func badPrincipalName() *problem.Error {
	return problem.New(problem.Invalid, "InvalidPrincipalName",
		"The name of a principal has 1 to %d bytes and no control characters.", maxName).
		WithTarget("name").WithAdvice("Choose another name.")
}

func badSignInName() *problem.Error {
	return problem.New(problem.Invalid, "InvalidUserPrincipalName",
		"A sign-in name is 1 to 64 letters, digits, dots, underscores, plus signs and hyphens, perhaps followed by @ and a domain.").
		WithTarget("userPrincipalName").WithAdvice("Choose a name such as ada or ada@example.com.")
}

func signInNameTaken(name string) *problem.Error {
	return problem.New(problem.Conflict, "UserPrincipalNameExists", "Another person has the sign-in name '%s'.", name).
		WithTarget("userPrincipalName").WithAdvice("Choose another one; 'kluis user list' shows those that there are.")
}

func badPassword() *problem.Error {
	return problem.New(problem.Invalid, "PasswordDoesNotComply", "A password has %d to %d bytes.", minPassword, maxPassword).
		WithTarget("password").WithAdvice("Choose a longer one, such as a few words; or let one be drawn.")
}

func notAPerson(p Principal) *problem.Error {
	return problem.New(problem.Conflict, "NotAUser", "The principal '%s' is an application, which has no password.", p.Name).
		WithTarget(p.ObjectID).WithAdvice("Give it another secret: kluis principal rotate.")
}

func notAnApplication(p Principal) *problem.Error {
	return problem.New(problem.Conflict, "NotAnApplication", "The principal '%s' is a person, who signs in with a password and nothing else.", p.Name).
		WithTarget(p.ObjectID).WithAdvice("Reset the password (kluis user reset-password), or make an application for a script (kluis principal create).")
}

func notYourself(p Principal) *problem.Error {
	return problem.New(problem.Conflict, "OwnPrincipal", "Nobody deletes or disables the principal that he is logged in as: '%s'.", p.Name).
		WithTarget(p.ObjectID).WithAdvice("Log in as another principal that may.")
}

func badCredential(why string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidCredential", "The credential can't be made: %s.", why).
		WithTarget("credential").WithAdvice("Correct it and try again.")
}

func badCertificate(cause error) *problem.Error {
	return problem.New(problem.Invalid, "KeyCredentialInvalidCertificate", "The certificate can't be used: %s.", clip(cause.Error())).
		WithTarget("certificate").WithAdvice("Give an X.509 certificate, PEM or DER, whose key is RSA with %d bits or more, or EC on P-256.", minRSABits)
}

func certificateExists(c Credential) *problem.Error {
	return problem.New(problem.Conflict, "KeyCredentialExists", "The certificate %s is registered already, as %s.", c.Thumbprint, c.ID).
		WithTarget(c.ID).WithAdvice("Nothing is to do: the principal can log in with it.")
}

func tooManyCredentials(p Principal) *problem.Error {
	return problem.New(problem.Conflict, "TooManyCredentials", "The principal '%s' has %d credentials, as many as it may.", p.Name, maxCredentials).
		WithTarget(p.ObjectID).WithAdvice("Remove one that is not used any more.")
}

func credentialNotFound(id string) *problem.Error {
	return problem.New(problem.NotFound, "CredentialNotFound", "The principal has no credential '%s'.", clip(id)).
		WithTarget(clip(id)).WithAdvice("Show the principal; its credentials are listed with their ids.")
}

func unknownRole(name string) *problem.Error {
	names := make([]string, len(builtInRoles))
	for i, r := range builtInRoles {
		names[i] = r.Name
	}
	return problem.New(problem.NotFound, "RoleDefinitionDoesNotExist",
		"The specified role definition with ID '%s' does not exist.", clip(name)).
		WithTarget("roleDefinitionId").WithAdvice("Use one of: %s.", strings.Join(names, ", "))
}

func customRolesNotSupported() *problem.Error {
	return problem.New(problem.Unsupported, "CustomRolesNotSupported", "Roles are built in: none can be made, changed or deleted here.").
		WithTarget("roleDefinitionId").WithAdvice("Assign the built-in role that fits best, at the narrowest scope (kluis role list).")
}

func assignmentNotFound(scope armid.ID, name string) *problem.Error {
	return problem.New(problem.NotFound, "RoleAssignmentNotFound", "The role assignment '%s' is not found at the scope '%s'.", clip(name), scope).
		WithTarget(scope.String()).WithAdvice("List the assignments; one that comes from a scope above is removed there.")
}

// noSuchAssignee passes on an error that is not about the principal.
func noSuchAssignee(id, tenant string, err error) error {
	if err != nil && problem.KindOf(err) != problem.NotFound {
		return err
	}
	return problem.New(problem.Invalid, "PrincipalNotFound",
		"Principal %s does not exist in the directory %s. Check that you have the correct principal ID.", clip(id), tenant).
		WithTarget("principalId").WithAdvice("Give the object id of a principal, which is not its application id.")
}

func otherAssigneeType(p Principal, said string) *problem.Error {
	return problem.New(problem.Invalid, "UnmatchedPrincipalType",
		"The PrincipalId '%s' has type '%s', which is different from the specified principalType '%s'.", p.ObjectID, p.assigneeType(), clip(said)).
		WithTarget("principalType").WithAdvice("Say '%s', or nothing.", p.assigneeType())
}

func assignmentExists(old Assignment) *problem.Error {
	return problem.New(problem.Conflict, "RoleAssignmentExists",
		"The role assignment already exists. The ID of the existing role assignment is %s.", strings.ReplaceAll(old.Name, "-", "")).
		WithTarget(old.ID().String()).WithAdvice("Nothing is to do: the principal has this role at this scope.")
}

func assignmentFixed(old Assignment) *problem.Error {
	return problem.New(problem.Invalid, "RoleAssignmentUpdateNotPermitted",
		"Tenant ID, application ID, principal ID, role definition ID, and scope are not allowed to be updated.").
		WithTarget(old.ID().String()).WithAdvice("Use another name for another assignment, or delete this one first.")
}

func badAssignmentName(name string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidRoleAssignmentId", "The role assignment ID '%s' is not valid. The role assignment ID must be a GUID.", clip(name)).
		WithTarget("roleAssignmentName").WithAdvice("Name the assignment with a new GUID.")
}

func badAssignment(what, why string) *problem.Error {
	return problem.New(problem.Invalid, "BadRequestFormat", "The role assignment can't be written: %s.", why).
		WithTarget(what).WithAdvice("Correct %s and send the request again.", what)
}

func lastAdministrator() *problem.Error {
	return problem.New(problem.Conflict, "CannotDeleteLastRbacAdminAssignment",
		"Cannot delete the last RBAC admin assignment: nobody could give roles for the subscription any more.").
		WithAdvice("Make somebody else Owner or User Access Administrator of the subscription first.")
}

// scopeLocked names the locks that are in the way.
func scopeLocked(action string, scope armid.ID, locks []Lock) *problem.Error {
	verb := "write"
	if strings.HasSuffix(strings.ToLower(action), "/delete") {
		verb = "delete"
	}
	scopes, names := make([]string, len(locks)), make([]string, len(locks))
	for i, l := range locks {
		scopes[i], names[i] = "'"+l.Scope.String()+"'", "'"+l.Name+"'"
	}
	return problem.New(problem.Conflict, "ScopeLocked",
		"The scope '%s' cannot perform %s operation because following scope(s) are locked: %s. Please remove the lock and try again.",
		scope, verb, strings.Join(scopes, ",")).
		WithTarget(scope.String()).WithAdvice("If nobody needs them, remove the locks: %s (kluis lock list).", strings.Join(names, ", "))
}

func lockNotFound(scope armid.ID, name string) *problem.Error {
	return problem.New(problem.NotFound, "LockNotFound", "The lock '%s' could not be found at the scope '%s'.", clip(name), scope).
		WithTarget(scope.String()).WithAdvice("List the locks; one that comes from a scope above is named there.")
}

func badLock(what, why string) *problem.Error {
	return problem.New(problem.Invalid, "LockDefinitionInvalid", "The lock can't be written; its %s is wrong: %s.", what, why).
		WithTarget(what).WithAdvice("Correct %s and send the request again.", what)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "")
}
