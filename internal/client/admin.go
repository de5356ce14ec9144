package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"kluis/internal/secret"
)

// Admin says where a server is and as whom to speak to it. A server writes such a file at its first
// start, admin.json in its data folder.
type Admin struct {
	Endpoint       string // https://localhost:PORT
	CAFile         string // PEM file of the server's own certificate authority
	TenantID       string
	SubscriptionID string
	ClientID       string
	ClientSecret   secret.Bytes
}

// ReadAdmin reads an admin file. A file that others may read is refused: it holds a secret.
func ReadAdmin(path string) (Admin, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Admin{}, &Error{
			Code:    "AdminFileNotFound",
			Message: fmt.Sprintf("There is no file %s that says where the server is.", path),
			Advice:  "Start a server with 'kluis serve', or name its admin.json with --admin or KLUIS_ADMIN.",
			Target:  path,
		}
	}
	if err != nil {
		return Admin{}, fmt.Errorf("read admin file: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return Admin{}, fmt.Errorf("read admin file: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return Admin{}, &Error{
			Code:    "AdminFileOpenToOthers",
			Message: fmt.Sprintf("The file %s holds a secret and can be used by others (mode %04o).", path, mode),
			Advice:  "Run: chmod 600 " + path,
			Target:  path,
		}
	}
	var file struct {
		Endpoint       string `json:"endpoint"`
		CAFile         string `json:"caFile"`
		TenantID       string `json:"tenantId"`
		SubscriptionID string `json:"subscriptionId"`
		ClientID       string `json:"clientId"`
		ClientSecret   string `json:"clientSecret"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		// The text of the error may quote the file, and the file holds a secret.
		return Admin{}, fmt.Errorf("read admin file %s: not a JSON object of strings", path)
	}
	for _, field := range []struct{ name, value string }{
		{"endpoint", file.Endpoint}, {"caFile", file.CAFile}, {"tenantId", file.TenantID},
		{"subscriptionId", file.SubscriptionID}, {"clientId", file.ClientID}, {"clientSecret", file.ClientSecret},
	} {
		if field.value == "" {
			return Admin{}, fmt.Errorf("read admin file %s: %s is missing", path, field.name)
		}
	}
	return Admin{
		Endpoint: file.Endpoint, CAFile: file.CAFile, TenantID: file.TenantID, SubscriptionID: file.SubscriptionID,
		ClientID: file.ClientID, ClientSecret: secret.New([]byte(file.ClientSecret)),
	}, nil
}
