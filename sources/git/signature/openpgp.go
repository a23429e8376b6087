package signature

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"time"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// skew is how much later than here the clock of who signs may be.
const skew = 5 * time.Minute

func readRing(armored []byte) (openpgp.EntityList, error) {
	return openpgp.ReadArmoredKeyRing(bytes.NewReader(armored))
}

// openPGP judges a signature at the time now: a key that has expired or is revoked by then vouches for nothing, since
// when a signature was made is only what its maker says. Algorithms that the library counts as weak are refused: SHA-1
// and MD5, DSA and ElGamal, RSA keys of less than 2048 bits.
func (k *Keys) openPGP(payload, block []byte, now time.Time) (Signer, error) {
	sig, err := onlySignature(block)
	if err != nil {
		return Signer{}, err
	}
	id := issuer(sig)
	if at := sig.CreationTime; at.After(now) && at.Before(now.Add(skew)) {
		now = at
	}
	config := &packet.Config{Time: func() time.Time { return now }}
	refusal := refuse(UnknownKey, id, "sign with a key of the list, or add this one to it", "it is signed by the OpenPGP key %s, which is not among those that may sign", id)
	for _, ring := range k.rings {
		entities, err := readRing(ring)
		if err != nil {
			return Signer{}, refuse(Invalid, id, "", "an OpenPGP key of the list cannot be read: %v", err)
		}
		for _, e := range entities.EntitiesById(*sig.IssuerKeyId) {
			signer, why := judgeBy(e, sig, payload, block, now, config)
			if why == nil {
				return signer, nil
			}
			refusal = why
		}
	}
	return Signer{}, refusal
}

// onlySignature returns the one packet of a block. Several signatures would be several opinions, and bytes after
// the first packet would be covered by nothing.
func onlySignature(block []byte) (*packet.Signature, error) {
	r := bytes.NewReader(block)
	p, err := packet.Read(r)
	if err != nil {
		return nil, refuse(Invalid, "", signAgain, "its OpenPGP signature cannot be read: %v", err)
	}
	sig, ok := p.(*packet.Signature)
	switch {
	case !ok:
		return nil, ambiguous("its OpenPGP signature holds something else")
	case r.Len() > 0:
		return nil, ambiguous("something follows its OpenPGP signature")
	case sig.SigType != packet.SigTypeBinary:
		return nil, refuse(Unsupported, "", signAgain, "its OpenPGP signature is of type %#x, and not one over bytes as they are", uint8(sig.SigType))
	case sig.IssuerKeyId == nil:
		return nil, refuse(Unsupported, "", signAgain, "its OpenPGP signature does not say by which key it is")
	}
	return sig, nil
}

// issuer is how a signature names its key: by the fingerprint, or by the key id.
func issuer(sig *packet.Signature) string {
	if len(sig.IssuerFingerprint) > 0 {
		return strings.ToUpper(hex.EncodeToString(sig.IssuerFingerprint))
	}
	return strings.ToUpper(hex.EncodeToString([]byte{
		byte(*sig.IssuerKeyId >> 56), byte(*sig.IssuerKeyId >> 48), byte(*sig.IssuerKeyId >> 40), byte(*sig.IssuerKeyId >> 32),
		byte(*sig.IssuerKeyId >> 24), byte(*sig.IssuerKeyId >> 16), byte(*sig.IssuerKeyId >> 8), byte(*sig.IssuerKeyId),
	}))
}

// judgeBy judges a signature by the keys of one owner.
func judgeBy(e *openpgp.Entity, sig *packet.Signature, payload, block []byte, now time.Time, config *packet.Config) (Signer, *Refusal) {
	owner := ""
	if _, id := e.PrimaryIdentity(time.Time{}, config); id != nil {
		owner = id.Name
	}
	name := issuer(sig)
	whose := "the OpenPGP key " + name
	if owner != "" {
		whose += " of " + owner
	}
	if e.Revoked(now) {
		return Signer{}, refuse(Revoked, name, signAgain, "%s is revoked", whose)
	}
	md, err := openpgp.VerifyDetachedSignatureReader(openpgp.EntityList{e}, bytes.NewReader(payload), bytes.NewReader(block), config)
	if err == nil {
		if _, err = io.Copy(io.Discard, md.UnverifiedBody); err == nil {
			err = md.SignatureError
		}
	}
	if err != nil {
		return Signer{}, whyNot(err, name, whose)
	}
	key := md.SignedBy.PublicKey
	if len(sig.IssuerFingerprint) > 0 && !bytes.Equal(sig.IssuerFingerprint, key.Fingerprint) {
		return Signer{}, refuse(Invalid, name, signAgain, "the signature names another key than the one that made it")
	}
	if err := usable(e, key.KeyId, now, config); err != nil {
		return Signer{}, whyNot(err, name, whose)
	}
	return Signer{Format: OpenPGP, Key: strings.ToUpper(hex.EncodeToString(key.Fingerprint)), Name: owner}, nil
}

// usable reports whether a key may sign at the time now, not only when the signature says that it was made.
func usable(e *openpgp.Entity, id uint64, now time.Time, config *packet.Config) error {
	if _, err := e.VerifyPrimaryKey(now, config); err != nil {
		return err
	}
	for i := range e.Subkeys {
		if e.Subkeys[i].PublicKey.KeyId == id {
			if _, err := e.Subkeys[i].Verify(now, config); err != nil {
				return err
			}
		}
	}
	if _, ok := e.SigningKeyById(now, id, config); !ok {
		return pgperrors.StructuralError("it may not be used to sign")
	}
	return nil
}

func whyNot(err error, name, whose string) *Refusal {
	var weak pgperrors.WeakAlgorithmError
	switch text := err.Error(); {
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return refuse(Revoked, name, signAgain, "%s is revoked", whose)
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return refuse(Expired, name, "extend the key and put it anew into the list, or "+signAgain, "%s has expired", whose)
	case errors.Is(err, pgperrors.ErrSignatureExpired):
		return refuse(Expired, name, signAgain, "the signature by %s has expired, or was made in the future", whose)
	case errors.As(err, &weak), strings.Contains(text, "insecure"):
		return refuse(Weak, name, "sign with a key and a hash of today", "the signature by %s is weak: %s", whose, strings.TrimPrefix(text, "openpgp: "))
	default:
		return refuse(Invalid, name, signAgain, "the signature is not one by %s over these bytes: %s", whose, strings.TrimPrefix(text, "openpgp: "))
	}
}
