package sops

import (
	"strings"

	"filippo.io/age"
)

// decryptDotenv decrypts lines of KEY=value. SOPS writes line ends in values as \n, and its metadata as keys that
// begin with sops_.
func decryptDotenv(data []byte, ids []age.Identity) ([]byte, []string, error) {
	lines := strings.Split(strings.TrimPrefix(string(data), "\xef\xbb\xbf"), "\n")
	var m metadata
	recipients := map[string]*ageKey{}
	var order []string
	for _, l := range lines {
		key, v, ok := strings.Cut(strings.TrimSuffix(l, "\r"), "=")
		key, ours := strings.CutPrefix(key, "sops_")
		if !ok || !ours {
			continue
		}
		v = strings.ReplaceAll(v, `\n`, "\n")
		switch key {
		case "lastmodified":
			m.LastModified = v
		case "mac":
			m.MAC = v
		case "mac_only_encrypted":
			m.MACOnlyEncrypted = v == "true"
		case "unencrypted_suffix":
			m.UnencryptedSuffix = v
		case "encrypted_suffix":
			m.EncryptedSuffix = v
		case "unencrypted_regex":
			m.UnencryptedRegex = v
		case "encrypted_regex":
			m.EncryptedRegex = v
		case "unencrypted_comment_regex":
			m.UnencryptedNote = v
		case "encrypted_comment_regex":
			m.EncryptedNote = v
		default:
			item, isAge := strings.CutPrefix(key, "age__list_")
			if !isAge {
				if strings.HasPrefix(key, "key_groups__list_1") {
					m.Threshold = 2
				}
				continue
			}
			n, field, _ := strings.Cut(item, "__map_")
			k := recipients[n]
			if k == nil {
				k = &ageKey{}
				recipients[n] = k
				order = append(order, n)
			}
			switch field {
			case "enc":
				k.Enc = v
			case "recipient":
				k.Recipient = v
			}
		}
	}
	for _, n := range order {
		m.Age = append(m.Age, *recipients[n])
	}
	o, err := newOpener(m, ids)
	if err != nil {
		return nil, nil, err
	}
	var out []string
	for _, l := range lines {
		l = strings.TrimSuffix(l, "\r")
		key, v, ok := strings.Cut(l, "=")
		switch {
		case l == "":
			continue
		case strings.HasPrefix(l, "#"):
			if strings.HasPrefix(l, "#"+sealed) {
				l = "#" // what an encrypted comment says is nobody's business here
			}
			out = append(out, l)
			continue
		case !ok:
			return nil, nil, malformed("a line is not KEY=value")
		case strings.HasPrefix(key, "sops_"):
			continue
		}
		v = strings.ReplaceAll(v, `\n`, "\n")
		plain, sealed, err := o.leaf([]string{key}, v, true, v)
		if err != nil {
			return nil, nil, err
		}
		if sealed {
			v = plain.text
		}
		out = append(out, key+"="+strings.ReplaceAll(v, "\n", `\n`))
	}
	if err := o.check(); err != nil {
		return nil, nil, err
	}
	return []byte(strings.Join(out, "\n") + "\n"), o.values, nil
}
