package libvirt_test

import (
	"fmt"
	"strings"
	"testing"

	"kluis/internal/fabric"
	"kluis/test/guest"
)

// wantScripts has a guest ask for scripts: the one before ends with a code, and each leaves its name in /run/ran.
func wantScripts(t *testing.T, g *guest.Guest, code int, goOn bool) {
	t.Helper()
	config := fmt.Sprintf(`{"pluginName":"ScriptRunner","preScriptLocation":"/etc/azure/pre","postScriptLocation":"/etc/azure/post",
		"preScriptParams":["before"],"postScriptParams":["after"],"preScriptNoOfRetries":1,"timeoutInSeconds":20,"continueBackupOnFailure":%t}`, goOn)
	script := func(name string, code int) string {
		return fmt.Sprintf("printf '#!/bin/sh\\necho $1 >>/run/ran\\nexit %d\\n' >/etc/azure/%s; chmod 700 /etc/azure/%[2]s; ", code, name)
	}
	_, err := g.Run(t.Context(), "mkdir -p /etc/azure; rm -f /run/ran; "+script("pre", code)+script("post", 0)+
		"cat >/etc/azure/VMSnapshotScriptPluginConfig.json <<'E'\n"+config+"\nE")
	if err != nil {
		t.Fatal(err)
	}
}

// ran fails unless the guest's scripts have run, in this order.
func ran(t *testing.T, g *guest.Guest, want string) {
	t.Helper()
	said, err := g.Run(t.Context(), "cat /run/ran")
	if got := strings.Join(strings.Fields(said), " "); err != nil || got != want {
		t.Errorf("scripts ran %q %v, want %q", got, err, want)
	}
}

func (f *failures) scripts(t *testing.T) {
	wantScripts(t, f.g, 0, false)
	if _, level := f.backUp(t, nil); level.Level != fabric.ApplicationConsistent || level.Reason != "" || level.Frozen <= 0 {
		t.Errorf("with scripts a backup is %+v", level)
	}
	ran(t, f.g, "before after")
	clean(t, f.g, 1)
}

func (f *failures) scriptsGoOn(t *testing.T) {
	wantScripts(t, f.g, 7, true)
	_, level := f.backUp(t, nil)
	if level.Level != fabric.FileSystemConsistent || !strings.Contains(level.Reason, "/etc/azure/pre in the guest ended with code 7") {
		t.Errorf("with a script that fails and may, a backup is %+v", level)
	}
	ran(t, f.g, "before before after")
	clean(t, f.g, 1)
}

func (f *failures) scriptsRefuse(t *testing.T) {
	wantScripts(t, f.g, 7, false)
	if _, err := f.h.Snapshot(t.Context(), f.vm, f.since); err == nil || !strings.Contains(err.Error(), "ended with code 7") {
		t.Errorf("with a script that fails and may not, a backup says %v", err)
	}
	ran(t, f.g, "before before after")
	clean(t, f.g, 1)
	if _, err := f.g.Run(t.Context(), "rm -r /etc/azure"); err != nil {
		t.Fatal(err)
	}
	f.incremental(t)
}
