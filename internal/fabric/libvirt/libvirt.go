// Package libvirt is the fabric of VMs that run: QEMU guests on hosts that libvirt manages.
//
// A Host is one libvirt daemon, here or elsewhere. It says which machines it has (inventory.go), tells
// when that changed (watch.go), and takes snapshots of them while they run (snapshot.go, job.go):
//
//	agent answers? -> freeze -> backup job and checkpoint, in one transaction -> thaw -> read over NBD
//	-> end the job -> (the recovery point is committed) -> drop the older checkpoint
//
// It also starts and stops them, with the keys of their disks on a volume in memory (power.go, keyvolume.go), makes them
// of what they were (define.go, gueststate.go), and boots a recovery point, which reaches nobody (isolate.go), to see
// whether it comes up (drill.go, caller.go). What differs for a host elsewhere is in far.go.
//
// Words. A domain is libvirt's word for a VM; here it is a machine. A backup job in pull mode is an NBD
// server inside QEMU that shows the disks as they were when it began; what the guest overwrites meanwhile
// is kept in a scratch file. A checkpoint is a dirty bitmap in each qcow2 image: what was written since.
// The agent is a program in the guest that freezes its file systems. The mark is a file of ours that says
// that a guest may be frozen.
//
// Invariants. A guest is frozen for as long as the transaction takes, and thawed on every path: by the
// snapshot, by a guard process when this one dies or takes too long (guard.go), and by the mark when both
// are gone. The guest is worth more than the backup: a job is ended before its scratch space is, and a
// guest that was stopped by it is resumed. What changed since a checkpoint is believed only when it can be
// proved that nothing was left out (checkpoint.go); else everything is read, and the reason is told.
// The bitmap is in the image, and so the proof goes with it, also to another host.
// Checkpoints of other programs are never touched: ours begin with "kluis-".
//
// Calls to libvirt take no context: each runs under a deadline of ours, and may go on in the daemon after it.
//
// A machine that is stopped is read in the same way: it is started with its processors halted, for as long
// as the backup lasts, and ends with our connection if not before. So one way of reading serves qcow2
// chains, block devices and hosts elsewhere, and libvirt itself keeps everybody else from the images.
//
// Sources: libvirt's formatbackup and formatcheckpoint, QEMU's interop/bitmaps and qemu-ga-ref.
package libvirt
