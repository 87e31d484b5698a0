package localbus

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// NamedJoin is the record of a join string that was made for one box. Its secret is not in it: it follows from the
// record's ID and the secret of the [Identity], so the file of the records lets nobody in.
type NamedJoin struct {
	// Name is the name, see [proto.CheckJoinName]. No two records of a file have one name, in whatever case.
	Name string     `json:"name"`
	Role proto.Role `json:"role"`
	// ID is random, so that a name that is given again has another secret.
	ID string `json:"id"`
	// Identity is the [Identity.ID] of the bus that the string was made for.
	Identity string `json:"identity"`
	// CreatedAt is when the string was made.
	CreatedAt time.Time `json:"created_at"`
	// ExpiresAt is when the string ends. The zero time: never.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// RevokedAt is when the string was revoked. The zero time: it was not.
	RevokedAt time.Time `json:"revoked_at,omitzero"`
}

// JoinState says whether a join string lets a box in.
type JoinState string

// The states of a join string.
const (
	JoinValid   JoinState = "valid"
	JoinExpired JoinState = "expired"
	JoinRevoked JoinState = "revoked"
	// JoinVoid is the state of a string that was made for an identity which was replaced since.
	JoinVoid JoinState = "void"
)

// StateAt returns the state of the string at a time, at a bus with an identity.
func (j NamedJoin) StateAt(now time.Time, id *Identity) JoinState {
	switch {
	case !j.RevokedAt.IsZero():
		return JoinRevoked
	case j.Identity != id.ID():
		return JoinVoid
	case !j.ExpiresAt.IsZero() && !now.Before(j.ExpiresAt):
		return JoinExpired
	}

	return JoinValid
}

// endedAt returns when the string has ended. It is the zero time for one that has not.
func (j NamedJoin) endedAt(now time.Time) time.Time {
	if j.RevokedAt.IsZero() && !j.ExpiresAt.IsZero() && !now.Before(j.ExpiresAt) {
		return j.ExpiresAt
	}
	return j.RevokedAt
}

// newNamedJoin returns the record of a new string for the bus with an identity.
func newNamedJoin(name string, role proto.Role, expires time.Time, id *Identity) NamedJoin {
	return NamedJoin{
		Name:      name,
		Role:      role,
		ID:        strings.ToLower(rand.Text()),
		Identity:  id.ID(),
		CreatedAt: time.Now().UTC().Truncate(time.Second),
		ExpiresAt: expires.UTC(),
	}
}

// ID returns the first 64 bits of the fingerprint of the certificate in hexadecimal digits. It is no secret.
func (id *Identity) ID() string { return id.id }

// NamedJoin returns the join string of a record for a bus at some addresses.
func (id *Identity) NamedJoin(record NamedJoin, addresses []string) proto.Join {
	j := id.Join(record.Role, addresses)
	j.Name, j.Expires = record.Name, record.ExpiresAt

	// The secrets of roles are hashes of other texts: no role has the name of a join string in it.
	mac := hmac.New(sha256.New, id.secret[:])
	mac.Write([]byte("join string " + record.ID + " " + string(record.Role)))
	copy(j.Token[:], mac.Sum(nil))

	return j
}
