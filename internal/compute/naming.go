package compute

import (
	"strings"

	"kluis/internal/armid"
)

// Hosts give their machines names that Resource Manager does not take. These rules mend them, always in the same way:
// what is not allowed becomes a hyphen.
const (
	maxVMName    = 64
	maxGroupName = 90
	uniquePart   = 8 // digits of a UUID that tell two machines of one name apart
)

// vmName is a machine's name as a VM may have it: letters, digits, hyphen, underscore and period, no underscore first
// and no period or hyphen last.
func vmName(name, uuid string) string {
	mended := strings.TrimLeft(hyphenated(name, "-_."), "-_.")
	mended = strings.TrimRight(mended[:min(len(mended), maxVMName-uniquePart-1)], "-.")
	if mended == "" {
		return "vm-" + unique(uuid)
	}
	return mended
}

// groupName is a name as a resource group may have it, or the fallback where nothing is left.
func groupName(name, fallback string) string {
	mended := hyphenated(name, "-_.()")
	mended = strings.TrimRight(mended[:min(len(mended), maxGroupName)], ".")
	if strings.Trim(mended, "-") == "" {
		return fallback
	}
	return mended
}

func hyphenated(name, allowed string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(allowed, r) {
			return r
		}
		return '-'
	}, name)
}

// freeName is the id with a name, or, where another resource has that, with a part of the machine's UUID behind it. look
// says what is there.
func freeName(group armid.ID, typ, name, uuid string, look func(armid.ID) error) (armid.ID, error) {
	id := group.Resource(typ, name)
	err := look(id)
	if err == nil {
		id = group.Resource(typ, name+"-"+unique(uuid))
		err = look(id)
	}
	switch {
	case err == nil:
		return id, nameTaken(id)
	case isNotFound(err):
		return id, nil
	}
	return id, err
}

func unique(uuid string) string { return uuid[:min(len(uuid), uniquePart)] }
