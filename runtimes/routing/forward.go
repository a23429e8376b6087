package routing

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"

	"github.com/coreos/go-iptables/iptables"
)

// forward is the rule that lets connections from outside to Services through the firewall of the engine, which drops
// what it does not know. It goes through iptables as the engine's own rules do: rules of iptables that something else
// wrote into its tables make the iptables command refuse them.
type forward struct {
	tables *iptables.IPTables
	absent bool // there is no iptables here, so the engine has no rules either
	done   bool
}

// userChain is where an engine leaves room for rules that come before its own.
const userChain = "DOCKER-USER"

func forwardRules(bridge string, engine bool) [][]string {
	comment := []string{"-m", "comment", "--comment", "fairlead " + bridge}
	state := func(which string) []string {
		return append([]string{"-o", bridge, "-m", "conntrack", "--ctstate", which, "-j", "ACCEPT"}, comment...)
	}
	rules := [][]string{state("DNAT")}
	if !engine {
		rules = append(rules, state("RELATED,ESTABLISHED"), append([]string{"-i", bridge, "-j", "ACCEPT"}, comment...))
	}
	return rules
}

func (f *forward) open() (bool, error) {
	if f.tables != nil || f.absent {
		return !f.absent, nil
	}
	if _, err := exec.LookPath("iptables"); err != nil {
		f.absent = true
		return false, nil
	}
	t, err := iptables.New(iptables.IPFamily(iptables.ProtocolIPv4), iptables.Timeout(5))
	if err != nil {
		return false, fmt.Errorf("use iptables: %w", err)
	}
	f.tables = t
	return true, nil
}

// ensureForward lets connections through the firewall when it is not known that it does.
func (r *Routes) ensureForward(first bool) error {
	if !first && r.forward.done {
		return nil
	}
	_, err := r.forward.repair(r.opt.Bridge)
	r.forward.done = err == nil
	return err
}

// repair makes the firewall let connections through. Where the engine has its chain for that, one rule there is
// enough. Where it has not (its rules were flushed, or it was told to make none) and forwarding is denied, the rules
// are put before all others, and also let pods' own connections through.
func (f *forward) repair(bridge string) (changed []string, err error) {
	ok, err := f.open()
	if !ok || err != nil {
		return nil, err
	}
	rules, err := f.tables.List("filter", "FORWARD")
	if err != nil {
		return nil, fmt.Errorf("read the firewall's rules for forwarded packets: %w", err)
	}
	chain := "FORWARD"
	if slices.Contains(rules, "-A FORWARD -j "+userChain) {
		chain = userChain
	} else if slices.Contains(rules, "-P FORWARD ACCEPT") {
		return nil, nil
	}
	for _, rule := range forwardRules(bridge, chain == userChain) {
		there, err := f.tables.Exists("filter", chain, rule...)
		if err == nil && !there {
			err = f.tables.Insert("filter", chain, 1, rule...)
			changed = append(changed, "firewall rule in "+chain)
		}
		if err != nil {
			return changed, fmt.Errorf("let connections to Services through the firewall, in chain %s: %w", chain, err)
		}
	}
	return changed, nil
}

// remove takes the rules away again.
func (f *forward) remove(bridge string) error {
	ok, err := f.open()
	if !ok || err != nil {
		return err
	}
	var errs []error
	for _, chain := range []string{userChain, "FORWARD"} {
		there, err := f.tables.ChainExists("filter", chain)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !there {
			continue
		}
		for _, rule := range forwardRules(bridge, false) {
			errs = append(errs, f.tables.DeleteIfExists("filter", chain, rule...))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the firewall's rules for Services: %w", err)
	}
	return nil
}
