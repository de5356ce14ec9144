package recovery_test

import (
	"bytes"
	"errors"
	"testing"

	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

// rot flips a bit in the first record of the first pack whose size is within limits.
func rot(t *testing.T, b *objectstest.Memory, least, most int) {
	t.Helper()
	for object, err := range b.List(t.Context(), "packs/") {
		if err != nil {
			t.Fatal(err)
		}
		if content := bytes.Clone(contentOf(t, b, object.Name)); len(content) >= least && len(content) <= most {
			content[100] ^= 1
			b.Replace(object.Name, content)
			return
		}
	}
	t.Fatal("no such pack")
}

// What is damaged and still on the disk is stored again by the next backup, and mends the older points.
func TestDamageHeals(t *testing.T) {
	data := noise(1, 3*mib)
	ways := map[string]struct {
		o       func(parent *recovery.Disk) recovery.DiskOptions
		extents []recovery.Extent
	}{
		"without parent": {o: func(*recovery.Disk) recovery.DiskOptions { return recovery.DiskOptions{} }},
		"compared":       {o: func(p *recovery.Disk) recovery.DiskOptions { return recovery.DiskOptions{Parent: p} }},
		"nothing changed": {
			o:       func(p *recovery.Disk) recovery.DiskOptions { return recovery.DiskOptions{Parent: p, Changed: true} },
			extents: []recovery.Extent{},
		},
		"neighbours changed": {
			o:       func(p *recovery.Disk) recovery.DiskOptions { return recovery.DiskOptions{Parent: p, Changed: true} },
			extents: []recovery.Extent{{Offset: 0, Length: 3 * kib}, {Offset: mib, Length: mib}, {Offset: 3*mib - cs, Length: cs}},
		},
	}
	for name, way := range ways {
		for _, cache := range []string{"", t.TempDir()} {
			t.Run(name+map[bool]string{true: " cached"}[cache != ""], func(t *testing.T) {
				clock := newClock()
				b, o := objectstest.NewMemory(), options(clock)
				o.Cache, o.PackSize = cache, 4*mib
				s := create(t, b, o)
				backup(t, s, "old", &image{data: data}, recovery.DiskOptions{})
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				rot(t, b, mib, 4*mib)

				s = open(t, b, o)
				var got target
				var damage *recovery.DamageError
				if _, err := s.Restore(t.Context(), disk(t, s, "old"), &got, recovery.RestoreOptions{}); !errors.As(err, &damage) {
					t.Fatalf("restore of what is damaged: %v", err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}

				s = open(t, b, o) // another process remembers
				_, c := backup(t, s, "new", &image{data: data, extents: way.extents}, way.o(disk(t, s, "old")))
				if c.New != cs {
					t.Errorf("%+v", c)
				}
				wantRestored(t, s, "new", data)
				wantRestored(t, s, "old", data)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, b, o)
				wantRestored(t, s, "old", data)
				if _, c := backup(t, s, "newer", &image{data: data}, recovery.DiskOptions{Parent: disk(t, s, "new")}); c.New != 0 || c.Stored != 0 {
					t.Errorf("healed twice: %+v", c)
				}

				// The copy stays as long as the old point, although its reference names the damaged place.
				for _, id := range []string{"new", "newer"} {
					if err := s.Delete(t.Context(), id); err != nil {
						t.Fatal(err)
					}
				}
				for range 3 {
					clock.advance(3 * day)
					if _, err := s.Collect(t.Context(), recovery.CollectOptions{}); err != nil {
						t.Fatal(err)
					}
				}
				wantRestored(t, s, "old", data)
			})
		}
	}
}

// A node of a manifest is no different.
func TestDamagedNodeHeals(t *testing.T) {
	data := noise(1, 3*mib)
	b, o := objectstest.NewMemory(), options(newClock())
	o.PackSize = 4 * mib
	s := create(t, b, o)
	backup(t, s, "old", &image{data: data}, recovery.DiskOptions{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	rot(t, b, 500, mib) // the document is in a smaller one

	s = open(t, b, o)
	var damage *recovery.DamageError
	nothing := &image{data: data, extents: []recovery.Extent{}}
	_, _, err := tryBackup(s, "new", nothing, recovery.DiskOptions{Parent: disk(t, s, "old"), Changed: true})
	if !errors.As(err, &damage) {
		t.Errorf("changed extents of a parent that can't be read: %v", err)
	}
	_, c := backup(t, s, "new", &image{data: data}, recovery.DiskOptions{Parent: disk(t, s, "old")})
	if c.New != 0 || c.Stored == 0 {
		t.Errorf("%+v", c)
	}
	wantRestored(t, s, "new", data)
	wantRestored(t, s, "old", data)
}
