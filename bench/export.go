package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sync/errgroup"

	"kluis/internal/nbd"
)

// Kluis reads exports inside its server and offers them there, and no command of it does one of the two and nothing else. So
// that both are measured as whole processes like their peers, the bench runs itself:
//
//	bench read-export NETWORK ADDRESS EXPORT CA      reads an export to its end; without CA in plain
//	bench offer-file NETWORK ADDRESS FILE TLS        offers a file until it is told to end; without TLS, a folder, in plain
var roles = map[string]func(ctx context.Context, args []string) error{"read-export": readExport, "offer-file": offerFile}

// play runs the part of the arguments in which the bench is measured itself.
func play(args []string) (played bool, err error) {
	if len(args) != 5 {
		return false, nil
	}
	role, ok := roles[args[0]]
	if !ok {
		return false, nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return true, role(ctx, args[1:])
}

// readExport reads as a backup does: two connections, and as many readers as there are processors, each a MiB at a time.
func readExport(ctx context.Context, args []string) error {
	network, address, export := args[0], args[1], args[2]
	config, err := trust(args[3])
	if err != nil {
		return err
	}
	var clients [2]*nbd.Client
	for i := range clients {
		if clients[i], err = nbd.DialTLS(ctx, network, address, config, export, nbd.ContextAllocation); err != nil {
			return err
		}
		defer func() { _ = clients[i].Close() }()
	}
	type piece struct{ off, n int64 }
	pieces := make(chan piece)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(pieces)
		for e, err := range clients[0].Source("").Extents(ctx) {
			if err != nil {
				return err
			}
			for off, end := e.Offset, e.Offset+e.Length; off < end; off += mib {
				select {
				case pieces <- piece{off, min(mib, end-off)}:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
		}
		return nil
	})
	for i := range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			buf := make([]byte, mib)
			for p := range pieces {
				if _, err := clients[i%len(clients)].ReadAt(buf[:p.n], p.off); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func trust(ca string) (*tls.Config, error) {
	if ca == "" {
		return nil, nil
	}
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("no certificate in %s", ca)
	}
	return &tls.Config{RootCAs: roots, ServerName: "localhost"}, nil
}

// file is a file whose every byte may hold something, as a disk.
type file struct {
	*os.File
	size int64
}

func (f file) Size() int64 { return f.size }

func (f file) NextData(_ context.Context, off int64) (start, n int64, err error) {
	return off, f.size - off, nil
}

// offerFile offers a file under the name disk.
func offerFile(ctx context.Context, args []string) error {
	network, address, path, folder := args[0], args[1], args[2], args[3]
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var o nbd.ServerOptions
	if folder != "" {
		cert, err := tls.LoadX509KeyPair(folder+"/"+serverCert, folder+"/"+serverKey)
		if err != nil {
			return err
		}
		o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	s := nbd.NewServer(o)
	if err := s.Offer(nbd.Export{Name: "disk", Disk: file{f, info.Size()}}); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, network, address)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, nbd.ErrServerClosed) {
		return err
	}
	return nil
}
