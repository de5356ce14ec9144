package luks

// What a header may cost. A header is written by whoever had the disk, and is read on a server that holds
// other people's recovery points: above these it is refused with a clear error.
const (
	// maxKeySize is AES-256 in XTS mode; the longest key of any cipher here.
	maxKeySize = 64
	// maxStripes is twice what every known writer uses (4000). With maxKeySize it bounds what one key
	// slot makes us read and keep: 512 KiB.
	maxStripes = 8192
	// maxPBKDF2 is about ten times what cryptsetup chooses on today's fastest machine.
	maxPBKDF2 = 100_000_000
	// maxArgon2Memory is cryptsetup's own default ceiling.
	maxArgon2Memory = 1 << 20 // KiB
	// maxArgon2Work bounds passes times memory: four times what two seconds of a fast server do.
	maxArgon2Work    = 32 << 20 // KiB
	maxArgon2Threads = 64
	// maxHeader2 is the largest header that LUKS2 defines: binary part and JSON.
	maxHeader2 = 4 << 20
	// maxJSONMarks bounds members and elements of the JSON, so that decoding it can't take many times
	// its length in memory. A header with all 32 key slots in use has about 1500.
	maxJSONMarks = 16 << 10
	maxSlots     = 32
	maxSaltSize  = 1 << 10
)
