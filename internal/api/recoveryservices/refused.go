package recoveryservices

import (
	"context"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
)

// Parts of Azure Backup that make no sense here, or that are not there, answer to whom may use them, and say so: a client
// learns more from that than from a path that does not exist. Lists of what cannot exist are empty.

// reason is why something is refused, and what to do instead.
type reason struct{ what, advice string }

var (
	securityPIN   = reason{"A security PIN", "Nothing here asks for one: it guards backups by agents inside machines, which are not supported."}
	dataMove      = reason{"Moving backup data between vaults", "Protect the virtual machines anew in the other vault, and keep this one until its recovery points have expired."}
	ownKey        = reason{"Encryption of a vault with a key of your own", "Each recovery store is encrypted with a key of its own; kluis recovery-kit keeps what opens it."}
	resourceGuard = reason{"Multi-user authorization by a resource guard", "Limit by roles who may delete backup data and change policies, and set soft delete of the vault to AlwaysON."}
	agents        = reason{"Registering servers and agents with a vault", "Protect virtual machines as a whole; no agent is registered for that."}
	privateLink   = reason{"A private endpoint", "Limit who reaches the server in your network."}
	otherRegion   = reason{"Restore in another region", "Restore from the vault itself; a second copy of the bucket is what survives the first."}
	archiveTier   = reason{"An archive tier", "Recovery points stay in the vault until they expire, and can be restored at once."}
	workloads     = reason{"Registering a container of other workloads", "Protect virtual machines (kluis item enable); their containers register themselves."}
	replication   = reason{"Site Recovery", "Back up virtual machines: kluis item enable."}
	intents       = reason{"Automatic protection of other workloads", "Protect virtual machines: kluis item enable."}
)

// refused are the types of which there is nothing but a refusal or an empty list.
func (d *door) refused() []arm.Resource {
	return []arm.Resource{
		{Type: vaults + "/extendedInformation", Get: d.refuse(agents), Put: d.refuse(agents), Patch: d.refuse(agents)},
		{Type: vaults + "/certificates", Put: d.refuse(agents)},
		{Type: vaults + "/registeredIdentities", Delete: d.refuse(agents)},
		{Type: vaults + "/privateLinkResources", Get: d.refuse(privateLink), List: d.emptyList},
		{Type: vaults + "/privateEndpointConnections", Get: d.refuse(privateLink), Put: d.refuse(privateLink), Delete: d.refuse(privateLink)},
		{Type: fabrics + "/backupProtectionIntent", Get: d.refuse(intents), Put: d.refuse(intents), Delete: d.refuse(intents)},
		{Type: vaults + "/backupProtectionIntents", List: d.emptyList},
		{Type: vaults + "/backupEngines", Get: d.refuse(agents), List: d.emptyList},
		{Type: vaults + "/replicationVaultSettings", Get: d.replicationSettings, Put: d.refuse(replication)},
		{Type: vaults + "/privateEndpointConnections/operationsStatus", Get: d.refuse(privateLink)},
		{Type: vaults + "/backupstorageconfig/operationResults", Get: d.refuse(dataMove)},
		{Type: vaults + "/backupstorageconfig/operationStatus", Get: d.refuse(dataMove)},
		{Type: vaults + "/backupTieringCost", Actions: map[string]arm.Handler{"fetchTieringCost": d.refuse(archiveTier)}},
		{Type: vaults + "/backupTieringCost/operationResults", Get: d.refuse(archiveTier)},
		{Type: vaults + "/backupTieringCost/operationsStatus", Get: d.refuse(archiveTier)},
		{Type: fabrics + "/protectableContainers", List: d.emptyList},
		{Type: containers + "/items", List: d.emptyList},
		{Type: containers + "/operationResults", Get: d.refuse(workloads)},
		{Type: locations + "/backupCrrOperationResults", Get: d.refuseAt(otherRegion)},
		{Type: locations + "/backupCrrOperationsStatus", Get: d.refuseAt(otherRegion)},
	}
}

// verbs are what methods do, in the words of actions.
var verbs = map[string]string{"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete", "POST": "action"}

// refuse answers whoever may do it that it is not done here.
func (d *door) refuse(why reason) arm.Handler {
	return func(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
		if _, err := d.s.VaultOf(ctx, target(r), verbs[r.HTTP.Method]); err != nil {
			return nil, err
		}
		return nil, notSupportedHere(r.ID.String(), why.what, why.advice)
	}
}

// replicationSettings are a vault's settings of Site Recovery: there are none. Terraform reads them with every vault.
func (d *door) replicationSettings(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := d.s.VaultOf(ctx, target(r), "read"); err != nil {
		return nil, err
	}
	return arm.OK(map[string]any{"id": r.ID.String(), "name": r.ID.Name(), "type": r.ID.Type(), "properties": map[string]any{}}), nil
}

// refuseAt is refuse for what belongs to a location, and to no vault.
func (d *door) refuseAt(why reason) arm.Handler {
	return func(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
		if err := d.s.AllowedAt(ctx, r.ID, actionOf(r)); err != nil {
			return nil, err
		}
		return nil, notSupportedHere(r.ID.String(), why.what, why.advice)
	}
}

// actionOf is the name that roles have for what a request does.
func actionOf(r *arm.Request) string {
	return target(r).Type() + "/" + verbs[r.HTTP.Method]
}

// target is what a request is for: an action is a part of the thing that it is done to.
func target(r *arm.Request) armid.ID {
	if r.Action != "" {
		return r.ID.Child(r.Action, "")
	}
	return r.ID
}

// noGuard: no vault is guarded.
func (d *door) noGuard(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := d.s.VaultOf(ctx, r.ID, verbs[r.HTTP.Method]); err != nil {
		return nil, err
	}
	return nil, noResourceGuard(r.ID)
}
