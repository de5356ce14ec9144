package identity

// Kind says what a principal is.
type Kind string

// The kinds of principals. An application proves itself with secrets and certificates, a person with a password.
const (
	Application Kind = "Application"
	User        Kind = "User"
)

// Principal is who calls: an application, a person, or the backup service itself.
type Principal struct {
	ObjectID   string // what assignments and access policies name
	AppID      string // what an application logs in with; a person has none
	SignInName string // what a person signs in with; an application has none
	TenantID   string
	Name       string
	Kind       Kind
	BuiltIn    bool // part of the product: it can't log in, can't be deleted and has no ARM rights
	Disabled   bool // can't log in, and what tokens it has are refused
}

// login is the name that a principal gives when it logs in.
func (p Principal) login() string {
	if p.Kind == User {
		return p.SignInName
	}
	return p.AppID
}

// BackupManagementService is the principal as which backups read keys and secrets. The application id
// is Azure's own, which scripts and templates name; the object id is the same in every installation.
var BackupManagementService = Principal{
	ObjectID: "5d3a9c1e-7b42-4f0a-9c56-1f8e2ab7d9c4",
	AppID:    "262044b1-e2ce-469f-a196-69ab7ada62d3",
	Name:     "Backup Management Service",
	Kind:     Application,
	BuiltIn:  true,
}

// AzureDiskEncryption is the principal as which a VM that starts gets the keys of its disks. It is let in by key vaults
// that are enabled for disk encryption; no role, policy or token is for it, and no directory lists it.
var AzureDiskEncryption = Principal{
	ObjectID: "8c1d1f57-3e2a-4b6b-9d0e-64a7c2f5e913",
	Name:     "Azure Disk Encryption",
	Kind:     Application,
	BuiltIn:  true,
}
