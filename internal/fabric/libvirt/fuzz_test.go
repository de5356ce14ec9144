package libvirt

import (
	"strings"
	"testing"
	"time"

	"kluis/internal/fabric"
)

// A host's administrator writes domains, and his tools do: nothing in one of them brings a server down, and no disk is
// both backed up and without a path.
func FuzzDomain(f *testing.F) {
	f.Add(domainText)
	f.Add(`<domain><devices><disk type='file'><source file='/a'/></disk><disk/><channel/><channel><target/></channel></devices></domain>`)
	f.Add(`<domain><metadata><kluis:vm xmlns:kluis="urn:kluis:vm:1" group="a"/><a></metadata></domain>`)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseDomain(text)
		if err != nil {
			return
		}
		_, _, _, _ = wishOf(d), osOf(d), agentOf(d), targetsOf(d)
		for _, disk := range disksOf(d) {
			if disk.Left == "" && disk.Path == "" {
				t.Errorf("%s is backed up and is nowhere", disk.Target)
			}
		}
	})
}

// A guest writes what is to be run in it: what is accepted has both scripts and bounds that hold.
func FuzzScripts(f *testing.F) {
	f.Add([]byte(`{"pluginName":"ScriptRunner","preScriptLocation":"/a","postScriptLocation":"/b","preScriptParams":["x"],"preScriptNoOfRetries":3,"timeoutInSeconds":30,"continueBackupOnFailure":true}`))
	f.Add([]byte(`{"preScriptLocation":"/a","postScriptLocation":"/b","preScriptNoOfRetries":-1}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseScripts(text)
		if err != nil {
			return
		}
		if s.Before == "" || s.After == "" || s.BeforeAt < 0 || s.BeforeAt > 3 || s.AfterAt < 0 || s.AfterAt > 3 ||
			s.Seconds < 0 || time.Duration(s.Seconds)*time.Second > maxScriptTime {
			t.Errorf("accepted: %+v", s)
		}
	})
}

// A checkpoint comes back from a recovery point: what is no checkpoint of ours is none, and what is one stays itself.
func FuzzToken(f *testing.F) {
	f.Add(string(token{Name: checkpointPrefix + "1", Disks: map[string]tokenDisk{"vda": {Path: "/a", File: "1:2", Size: 3}}}.encode()))
	f.Add(`{"name":"theirs"}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, text string) {
		read := decodeToken(fabric.Checkpoint(text))
		if read.Name == "" {
			return
		}
		again := decodeToken(read.encode())
		if len(read.Disks) == 0 {
			return // it is written as no checkpoint
		}
		if again.Name != read.Name || len(again.Disks) != len(read.Disks) {
			t.Errorf("%q is read as %+v, then as %+v", text, read, again)
		}
	})
}

// QEMU writes tables for people: what is read of one is a port, and no line of one is more than one connection.
func FuzzUsernet(f *testing.F) {
	f.Add(usernetText)
	f.Add("  TCP[] 3 * 0 * 0 0 0\nTCP[ 1 2 3 4 5 6 7\n")
	f.Fuzz(func(t *testing.T, text string) {
		all := parseUsernet(text)
		if len(all) > strings.Count(text, "\n")+1 {
			t.Errorf("%d connections", len(all))
		}
		for _, c := range all {
			if c.port < 0 || c.port > 65535 || strings.ContainsAny(c.state, " \n") {
				t.Errorf("read %+v", c)
			}
		}
	})
}
