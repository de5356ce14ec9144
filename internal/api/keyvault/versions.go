package keyvault

import "kluis/internal/api/arm"

// managementVersions are the api-versions of the management half of Microsoft.KeyVault.
var managementVersions = map[string]arm.Versions{"Microsoft.KeyVault": {
	"2026-02-01", "2025-05-01", "2024-11-01", "2024-04-01-preview", "2023-07-01", "2023-02-01", "2022-11-01", "2022-07-01",
	"2022-02-01-preview", "2021-11-01-preview", "2021-10-01", "2021-06-01-preview", "2021-04-01-preview", "2020-04-01-preview",
	"2019-09-01", "2018-02-14", "2016-10-01", "2015-06-01",
}}

// as70 takes out of an answer of the data plane what came with api-version 7.1: the days for which something deleted can be
// recovered.
func as70(reply any) any {
	switch r := reply.(type) {
	case keyBundle:
		r.Attributes.RecoverableDays = 0
		return r
	case secretBundle:
		r.Attributes.RecoverableDays = 0
		return r
	case listBody[keyItem]:
		for i := range r.Value {
			r.Value[i].Attributes.RecoverableDays = 0
		}
	case listBody[secretBundle]:
		for i := range r.Value {
			r.Value[i].Attributes.RecoverableDays = 0
		}
	}
	return reply
}
