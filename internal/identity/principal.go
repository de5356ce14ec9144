package identity

// Kind says what a principal is.
type Kind string

// Application is the one kind there is: it proves itself with secrets and certificates.
const Application Kind = "Application"

// Principal is who calls: an application, or the backup service itself.
type Principal struct {
	ObjectID string // what assignments and access policies name
	AppID    string // what the application logs in with
	TenantID string
	Name     string
	Kind     Kind
	BuiltIn  bool // part of the product: it can't log in, can't be deleted and has no ARM rights
	Disabled bool // can't log in, and what tokens it has are refused
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
