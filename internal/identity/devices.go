package identity

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"kluis/internal/database"
)

// Device codes (RFC 8628) are for programs without a browser. The program shows a short code to a person, who types it
// into a page of this server elsewhere, sees which program asks, and signs in. Meanwhile the program asks again and again.

const (
	deviceLife     = 15 * time.Minute
	devicePause    = 5 * time.Second // between two questions
	userCodeSize   = 8
	userCodeLetter = "BCDFGHJKLMNPQRSTVWXZ" // no vowels, so no words; 20 of them: 35 bits
)

// The states of a device that asks.
const (
	devicePending = "pending"
	deviceAllowed = "allowed"
	deviceDenied  = "denied"
)

// Device is what a program shows, and asks with.
type Device struct {
	Code     string
	UserCode string // such as BCDF-GHJK
	Life     time.Duration
	Pause    time.Duration
}

// NewDevice begins the sign-in of a program without a browser. Nobody has to be anybody for that, so who begins too many,
// from one place, has to wait.
func (s *Service) NewDevice(ctx context.Context, w Wanted, from string) (Device, error) {
	client, known := program(w.ClientID)
	if !known {
		return Device{}, unknownClient(w.ClientID, s.tenant)
	}
	if !s.devices.try(from, s.now()) {
		return Device{}, tooManyDevices()
	}
	w.ClientID = client.ID
	code, hash, err := s.drawCode()
	if err != nil {
		return Device{}, err
	}
	userCode, err := s.drawUserCode()
	if err != nil {
		return Device{}, err
	}
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		if err := deleteExpiredDevices(ctx, tx, s.now().Add(-deviceLife)); err != nil {
			return fmt.Errorf("forget expired devices: %w", err)
		}
		return insertDevice(ctx, tx, storedDevice{hash: hash, userCode: userCode, wanted: w, state: devicePending, expires: s.now().Add(deviceLife)})
	})
	return Device{code, userCode[:4] + "-" + userCode[4:], deviceLife, devicePause}, err
}

// drawUserCode picks letters, each as often as any other.
func (s *Service) drawUserCode() (string, error) {
	var text strings.Builder
	for b := make([]byte, 1); text.Len() < userCodeSize; {
		if _, err := io.ReadFull(s.rand, b); err != nil {
			return "", fmt.Errorf("draw user code: %w", err)
		}
		if n := len(userCodeLetter); int(b[0]) < 256/n*n {
			text.WriteByte(userCodeLetter[int(b[0])%n])
		}
	}
	return text.String(), nil
}

// foldUserCode is a user code as it is kept, however it was typed.
func foldUserCode(typed string) string {
	return strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(typed))
}

// DeviceClient says which program shows a user code. from is where the question comes from: who asks for too many that
// don't exist has to wait.
func (s *Service) DeviceClient(ctx context.Context, typed, from string) (Client, error) {
	if !s.typed.try(from, s.now()) {
		return Client{}, tooManyCodes()
	}
	var d storedDevice
	err := s.db.Read(ctx, func(tx *database.Tx) (err error) {
		d, err = s.openDevice(ctx, tx, typed)
		return err
	})
	if err != nil {
		return Client{}, err
	}
	s.typed.forgive(from)
	c, _ := program(d.wanted.ClientID)
	return c, nil
}

// openDevice finds a device that waits for its answer.
func (s *Service) openDevice(ctx context.Context, tx *database.Tx, typed string) (storedDevice, error) {
	d, found, err := deviceByUserCode(ctx, tx, foldUserCode(typed))
	switch {
	case err != nil:
		return d, fmt.Errorf("find device: %w", err)
	case !found || d.state != devicePending || !s.now().Before(d.expires):
		return d, unknownUserCode()
	}
	return d, nil
}

// AllowDevice lets the program that shows the user code have what it wants, in the name of a person who has just
// signed in.
func (s *Service) AllowDevice(ctx context.Context, typed string, person Principal) error {
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		d, err := s.openDevice(ctx, tx, typed)
		if err != nil {
			return err
		}
		r, found, err := principalByID(ctx, tx, person.ObjectID)
		if err != nil || !found || r.Disabled {
			return cmp.Or(err, error(disabledUser()))
		}
		d.state, d.principal, d.sessions = deviceAllowed, r.ObjectID, r.sessions
		return answerDevice(ctx, tx, d)
	})
}

// DenyDevice refuses it.
func (s *Service) DenyDevice(ctx context.Context, typed string) error {
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		d, err := s.openDevice(ctx, tx, typed)
		if err != nil {
			return err
		}
		d.state = deviceDenied
		return answerDevice(ctx, tx, d)
	})
}

// PollDevice returns the tokens, once, when a person has allowed it. Who asks too often while nobody has answered is told so.
func (s *Service) PollDevice(ctx context.Context, clientID, code string) (Session, error) {
	client, known := program(clientID)
	if !known {
		return Session{}, unknownClient(clientID, s.tenant)
	}
	return s.settle(ctx, func(tx *database.Tx) (o Session, refusal, err error) {
		d, found, err := deviceByHash(ctx, tx, hashOf(code))
		now := s.now()
		switch {
		case err != nil:
			return o, nil, fmt.Errorf("find device: %w", err)
		case !found:
			return o, unknownDevice(), nil
		case d.wanted.ClientID != client.ID:
			return o, otherClient(), nil
		case !now.Before(d.expires):
			return o, expiredDevice(), nil
		case d.state == deviceDenied:
			return o, deniedDevice(), deleteDevice(ctx, tx, d.hash)
		case d.state == devicePending && now.Sub(d.polled) < devicePause:
			return o, hastyDevice(), pollDevice(ctx, tx, d.hash, now)
		case d.state == devicePending:
			return o, pendingDevice(), pollDevice(ctx, tx, d.hash, now)
		}
		if err := deleteDevice(ctx, tx, d.hash); err != nil {
			return o, nil, err
		}
		o, err = s.openSession(ctx, tx, begun{d.principal, d.sessions, d.hash, now}, d.wanted)
		return o, nil, err
	})
}
