package compute

import "kluis/internal/api/arm"

// versions are the api-versions of Microsoft.Compute: disks and snapshots have theirs, all else those of virtual machines.
// The oldest are those of deployment templates from the time of unmanaged disks.
var versions = map[string]arm.Versions{
	"Microsoft.Compute": {
		"2025-04-01", "2024-11-01", "2024-07-01", "2024-03-01", "2023-09-01", "2023-07-01", "2023-03-01", "2022-11-01", "2022-08-01",
		"2022-03-01", "2021-11-01", "2021-07-01", "2021-04-01", "2021-03-01", "2020-12-01", "2020-06-01", "2019-12-01", "2019-07-01",
		"2019-03-01", "2018-10-01", "2018-06-01", "2018-04-01", "2017-12-01", "2017-03-30", "2016-08-30", "2016-04-30-preview",
		"2016-03-30", "2015-06-15",
	},
	"Microsoft.Compute/disks":     diskVersions,
	"Microsoft.Compute/snapshots": diskVersions,
	operationType:                 diskVersions,
}

var diskVersions = arm.Versions{
	"2025-04-01", "2025-01-02", "2024-03-02", "2023-10-02", "2023-04-02", "2023-01-02", "2022-07-02", "2022-03-02", "2021-12-01",
	"2021-08-01", "2021-04-01", "2020-12-01", "2020-09-30", "2020-06-30", "2020-05-01", "2019-11-01", "2019-07-01", "2019-03-01",
	"2018-09-30", "2018-06-01", "2018-04-01", "2017-03-30", "2016-04-30-preview",
}
