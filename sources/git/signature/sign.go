package signature

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ProtonMail/go-crypto/openpgp"
)

// OpenPGPSigner returns a function that signs with an OpenPGP private key in ASCII armor, in the form of a commit's signature.
func OpenPGPSigner(key, passphrase []byte) (func(content []byte) (string, error), error) {
	ring, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(key))
	if err != nil || len(ring) == 0 {
		return nil, errors.New("it is no OpenPGP key in ASCII armor")
	}
	entity := ring[0]
	if entity.PrivateKey == nil {
		return nil, errors.New("it has no private key: export it with gpg --export-secret-keys --armor")
	}
	if entity.PrivateKey.Encrypted {
		if err := entity.DecryptPrivateKeys(passphrase); err != nil {
			return nil, errors.New("its passphrase is wrong, or missing")
		}
	}
	return func(content []byte) (string, error) {
		var out bytes.Buffer
		if err := openpgp.ArmoredDetachSign(&out, entity, bytes.NewReader(content), nil); err != nil {
			return "", fmt.Errorf("sign with OpenPGP: %w", err)
		}
		return out.String() + "\n", nil
	}, nil
}
