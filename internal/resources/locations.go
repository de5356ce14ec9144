package resources

import (
	"context"
	"slices"
)

// Location is a place that resources can be in. Here it is only a name: nothing is anywhere else than this server.
type Location struct{ Name, DisplayName string }

// displayNames are Azure's, of its larger regions; any other location is shown by its name.
var displayNames = map[string]string{
	"australiaeast": "Australia East", "brazilsouth": "Brazil South", "canadacentral": "Canada Central", "centralindia": "Central India",
	"centralus": "Central US", "eastasia": "East Asia", "eastus": "East US", "eastus2": "East US 2", "francecentral": "France Central",
	"germanywestcentral": "Germany West Central", "japaneast": "Japan East", "koreacentral": "Korea Central", "northcentralus": "North Central US",
	"northeurope": "North Europe", "norwayeast": "Norway East", "polandcentral": "Poland Central", "southafricanorth": "South Africa North",
	"southcentralus": "South Central US", "southeastasia": "Southeast Asia", "swedencentral": "Sweden Central", "switzerlandnorth": "Switzerland North",
	"uaenorth": "UAE North", "uksouth": "UK South", "westcentralus": "West Central US", "westeurope": "West Europe", "westus": "West US",
	"westus2": "West US 2", "westus3": "West US 3",
}

func location(name string) Location {
	l := Location{Name: canonical(name), DisplayName: name}
	if known := displayNames[l.Name]; known != "" {
		l.DisplayName = known
	}
	return l
}

// Offered are the locations that were configured.
func (s *Service) Offered() []Location {
	var all []Location
	for _, name := range s.o.Locations {
		if l := location(name); !slices.ContainsFunc(all, func(o Location) bool { return o.Name == l.Name }) {
			all = append(all, l)
		}
	}
	return all
}

// Locations are those that were configured, and those that the groups are in which the caller may read.
func (s *Service) Locations(ctx context.Context) ([]Location, error) {
	groups, err := s.Groups(ctx)
	if err != nil {
		return nil, err
	}
	all := s.Offered()
	for _, g := range groups {
		if l := location(g.Location); !slices.ContainsFunc(all, func(o Location) bool { return o.Name == l.Name }) {
			all = append(all, l)
		}
	}
	return all, nil
}
