package identity

import "kluis/internal/problem"

// What is said to people who sign in, and to the clients that they sign in to. The numbers are Entra's, where it has one.

const signInOnceMore = "Sign in again."

func tooManyGuesses() *problem.Error {
	return problem.New(problem.Unavailable, CodeTryLater,
		"AADSTS50053: Sign-in was tried too many times with a wrong name or password, and is refused for a while.").
		WithTarget("password").WithAdvice("Wait a minute and try again; an administrator can reset the password (kluis user reset-password).")
}

func wrongPassword() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidGrant, "AADSTS50126: The name or the password is wrong.").
		WithTarget("password").WithAdvice("Check both; an administrator can reset the password (kluis user reset-password).")
}

func disabledUser() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidGrant, "AADSTS50057: The user account is disabled.").
		WithTarget("username").WithAdvice("Have an administrator enable it: kluis user enable.")
}

func publicClient(clientID string) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidClient,
		"AADSTS700025: Client '%s' is public so neither 'client_assertion' nor 'client_secret' should be presented.", clientID).
		WithTarget("client_id").WithAdvice("Send neither; a program on somebody's machine can't keep a secret.")
}

func wrongRedirectURI(uri, clientID string) *problem.Error {
	return problem.New(problem.Invalid, CodeInvalidRequest,
		"AADSTS50011: The redirect URI '%s' specified in the request does not match the redirect URIs configured for the application '%s'.", clip(uri), clientID).
		WithTarget("redirect_uri").WithAdvice("Programs listen on http://localhost:PORT; for an application, register the URI: kluis principal set-redirect-uris.")
}

func missingChallenge() *problem.Error {
	return problem.New(problem.Invalid, CodeInvalidRequest, "AADSTS50147: The code challenge parameter is missing. PKCE is required.").
		WithTarget("code_challenge").WithAdvice("Send code_challenge with code_challenge_method=S256 (RFC 7636).")
}

func wrongChallengeMethod(method string) *problem.Error {
	return problem.New(problem.Invalid, CodeInvalidRequest, "AADSTS501471: The code challenge method '%s' is not supported.", clip(method)).
		WithTarget("code_challenge_method").WithAdvice("Use S256.")
}

func badChallenge() *problem.Error {
	return problem.New(problem.Invalid, CodeInvalidRequest, "AADSTS501491: The code challenge is not a SHA-256 in base64url.").
		WithTarget("code_challenge").WithAdvice("Send the 43 characters that RFC 7636 asks for.")
}

func invalidGrant() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidGrant, "AADSTS70000: The provided authorization code or refresh token is invalid.").
		WithAdvice(signInOnceMore)
}

func expiredGrant() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidGrant, "AADSTS70008: The provided authorization code or refresh token has expired.").
		WithAdvice(signInOnceMore)
}

func spentCode() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidGrant, "AADSTS54005: The authorization code was already redeemed. What came of it has ended.").
		WithAdvice(signInOnceMore)
}

func endedSession() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidGrant, "AADSTS50173: The provided grant has been revoked.").WithAdvice(signInOnceMore)
}

func otherClient() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidGrant, "AADSTS700005: The provided code or refresh token was given to another client.").
		WithTarget("client_id").WithAdvice(signInOnceMore)
}

func otherRedirectURI() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidGrant,
		"AADSTS500112: The reply address does not match the reply address provided when requesting the authorization code.").
		WithTarget("redirect_uri").WithAdvice("Send the same redirect_uri twice.")
}

func otherAudience() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidGrant, "AADSTS65001: The authorization code is for another resource.").
		WithTarget("scope").WithAdvice("Send the same scope twice, or use the refresh token to get a token for another resource.")
}

func wrongVerifier() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidGrant,
		"AADSTS501481: The code verifier does not match the code challenge supplied in the authorization request.").
		WithTarget("code_verifier").WithAdvice(signInOnceMore)
}

func tooManyCodes() *problem.Error {
	return problem.New(problem.Unavailable, CodeTryLater, "AADSTS50053: Too many codes were entered that do not exist.").
		WithTarget("user_code").WithAdvice("Wait some seconds and enter the code that the program shows.")
}

func tooManyDevices() *problem.Error {
	return problem.New(problem.Unavailable, CodeTryLater, "AADSTS50053: Too many devices begin to sign in from there.").
		WithTarget("client_id").WithAdvice("Wait some seconds and begin again.")
}

func unknownUserCode() *problem.Error {
	return problem.New(problem.NotFound, CodeInvalidGrant, "AADSTS70019: There is no such code, or it has expired.").
		WithTarget("user_code").WithAdvice("Enter the code that the program shows, or begin again there.")
}

func unknownDevice() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidGrant, "AADSTS70019: The device code is invalid, or was used already.").
		WithTarget("device_code").WithAdvice("Begin again.")
}

func pendingDevice() *problem.Error {
	return problem.New(problem.Unauthenticated, CodePending, "AADSTS70016: Nobody has signed in with the code yet.").
		WithAdvice("Ask again in %d seconds.", int(devicePause.Seconds()))
}

func hastyDevice() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeSlowDown, "AADSTS70016: Nobody has signed in with the code yet, and the question comes too soon.").
		WithAdvice("Ask again in %d seconds.", int(devicePause.Seconds()))
}

func expiredDevice() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeExpired, "AADSTS70020: The device code has expired.").WithAdvice("Begin again.")
}

func deniedDevice() *problem.Error {
	return problem.New(problem.Unauthenticated, CodeAccessDenied, "AADSTS65004: The person refused to sign in.").WithAdvice("Begin again.")
}

func sessionEnded(objectID string) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidToken, "The access token is of the user '%s', who was signed out since.", objectID).
		WithAdvice(signInOnceMore)
}

func outsideAway(issuer string) *problem.Error {
	return problem.New(problem.Unavailable, "IssuerUnavailable", "The issuer '%s' of the access token can't be asked for its keys.", issuer).
		WithAdvice("Try again; if it lasts, see to it that this server reaches the issuer.")
}

func noOutsideIssuer() *problem.Error {
	return problem.New(problem.Invalid, "InvalidCredential", "This server is told of no issuer outside, and none was named.").
		WithTarget("issuer").WithAdvice("Name the issuer, and start the server with --oidc-issuer.")
}

func alreadyTrusted(c Credential, principal string) *problem.Error {
	return problem.New(problem.Conflict, "FederatedCredentialExists", "The %s '%s' of this issuer is trusted already, by the principal '%s'.", c.Kind, clip(c.Name), principal).
		WithTarget(principal).WithAdvice("Take it away there first: kluis principal untrust.")
}

func nobodyTrusts(subject string) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidToken, "No principal trusts the subject '%s' of the access token, nor one of its groups.", clip(subject)).
		WithAdvice("Have an administrator say whom it stands for: kluis principal trust.")
}

func severalTrust(subject, principals string) *problem.Error {
	return problem.New(problem.Unauthenticated, CodeInvalidToken,
		"Several principals trust groups of the access token of '%s' (%s), and nothing says which is meant.", clip(subject), clip(principals)).
		WithAdvice("Have an administrator trust the subject itself: kluis principal trust.")
}

func badRedirectURI(why string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidRedirectURI", "The redirect URIs can't be used: %s.", why).
		WithTarget("redirectUris").WithAdvice("Give https URLs, or http ones on localhost, each exactly as the application sends it.")
}
