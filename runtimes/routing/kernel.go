package routing

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// family is that of the table: pods have IPv4 addresses.
const family = nftables.TableFamilyIPv4

// maxElements is how many elements one message has; its length is a 16-bit number.
const maxElements = 500

// sendBuffer is the most that one transaction may need, receiveBuffer what the answers to its messages take. The
// kernel accounts what is used, nothing is set aside.
const (
	sendBuffer    = 1 << 30
	receiveBuffer = 64 << 20
)

// kernel carries changes of the table out. It belongs to who has the turn, ports but for.
type kernel struct {
	table string
	conn  *nftables.Conn
	// fixed is how many chains and sets the table has that do not depend on the Services.
	fixed int

	mu sync.Mutex
	// ports are the netlink addresses of this process's connections, by which what it did itself is known.
	ports map[uint32]bool
}

func (k *kernel) open() (*nftables.Conn, error) {
	if k.conn != nil {
		return k.conn, nil
	}
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		if err := errors.Join(c.SetWriteBuffer(sendBuffer), c.SetReadBuffer(receiveBuffer)); err != nil {
			return fmt.Errorf("set the buffers of the netlink socket: %w", err)
		}
		port, err := portOf(c)
		if err != nil {
			return err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.ports == nil {
			k.ports = make(map[uint32]bool)
		}
		k.ports[port] = true
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	k.conn = conn
	return conn, nil
}

// portOf returns a socket's netlink address.
func portOf(c *netlink.Conn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var at unix.Sockaddr
	var e error
	if err := raw.Control(func(fd uintptr) { at, e = unix.Getsockname(int(fd)) }); err != nil || e != nil {
		return 0, fmt.Errorf("read the netlink address: %w", errors.Join(err, e))
	}
	return at.(*unix.SockaddrNetlink).Pid, nil
}

// own reports whether a netlink address is of this process's.
func (k *kernel) own(port uint32) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ports[port]
}

func (k *kernel) close() {
	if k.conn != nil {
		_ = k.conn.CloseLasting()
		k.conn = nil
	}
}

// flush sends a transaction. After an error the connection may hold answers that nobody read, so it goes.
func (k *kernel) flush(doing string) error {
	if err := k.conn.Flush(); err != nil {
		k.close()
		return fmt.Errorf("%s the table ip %s: %w", doing, k.table, err)
	}
	return nil
}

// apply carries out a change.
func (k *kernel) apply(c *change) error {
	if c.empty() {
		return nil
	}
	conn, err := k.open()
	if err != nil {
		return err
	}
	t := newTransaction(conn, k.table)
	t.change(c)
	if t.err != nil {
		k.close()
		return t.err
	}
	return k.flush("change")
}

// replace writes the table anew, in one transaction with the removal of what was there. Which endpoint clients stay
// with is taken over.
func (k *kernel) replace(schema func(*transaction), c *change, keep func(memory set, key, target []byte) bool) error {
	conn, err := k.open()
	if err != nil {
		return err
	}
	kept := k.kept()
	t := newTransaction(conn, k.table)
	conn.AddTable(t.table) // so that there is one to delete
	conn.DelTable(t.table)
	schema(t)
	k.fixed = t.objects
	t.change(c)
	for s, all := range kept {
		all = slices.DeleteFunc(all, func(e nftables.SetElement) bool { return !keep(s, e.Key, e.Val) })
		for part := range slices.Chunk(all, maxElements) {
			t.note(conn.SetAddElements(t.sets[s], part))
		}
	}
	if t.err != nil {
		k.close()
		return t.err
	}
	return k.flush("replace")
}

// write carries out a transaction of a few rules.
func (k *kernel) write(rules func(*transaction)) error {
	conn, err := k.open()
	if err != nil {
		return err
	}
	rules(newTransaction(conn, k.table))
	return k.flush("change")
}

// kept reads which endpoints clients stay with, each for the rest of its time. Without a table there is nothing, and in
// one that somebody changed maybe nothing: clients are given an endpoint anew then.
func (k *kernel) kept() map[set][]nftables.SetElement {
	out := make(map[set][]nftables.SetElement)
	conn, err := nftables.New()
	if err != nil {
		return out
	}
	t := newTransaction(conn, k.table)
	for _, s := range []set{affinities, portAffinities} {
		kept, err := t.read(s)
		if err != nil {
			return out
		}
		for i := range kept {
			kept[i].Timeout = kept[i].Expires
		}
		out[s] = slices.DeleteFunc(kept, func(e nftables.SetElement) bool { return e.Timeout <= 0 })
	}
	return out
}

// forget removes clients from what the kernel remembers.
func (k *kernel) forget(keep func(memory set, key, target []byte) bool) error {
	conn, err := k.open()
	if err != nil {
		return err
	}
	t := newTransaction(conn, k.table)
	for s, all := range k.kept() {
		for _, e := range all {
			if !keep(s, e.Key, e.Val) {
				// One that ended meanwhile fails the transaction: each has its own.
				t.note(conn.SetDeleteElements(t.sets[s], []nftables.SetElement{{Key: e.Key, Val: e.Val}}))
				if err := k.flush("change"); err != nil && !errors.Is(err, unix.ENOENT) {
					return err
				}
				if conn, err = k.open(); err != nil {
					return err
				}
				t = newTransaction(conn, k.table)
			}
		}
	}
	return t.err
}

// objects returns how many chains and sets the table has; 0 without a table.
func (k *kernel) objects() (uint32, error) {
	conn, err := k.open()
	if err != nil {
		return 0, err
	}
	tables, err := conn.ListTablesOfFamily(family)
	if err != nil {
		k.close()
		return 0, fmt.Errorf("look for the table ip %s: %w", k.table, err)
	}
	for _, t := range tables {
		if t.Name == k.table {
			return t.Use, nil
		}
	}
	return 0, nil
}

// elements reads all elements of the table but those that the kernel makes and those of classes.
func (k *kernel) elements() ([]element, error) {
	conn, err := k.open()
	if err != nil {
		return nil, err
	}
	t := newTransaction(conn, k.table)
	var out []element
	for s := services; s < affinities; s++ {
		have, err := t.read(s)
		if err != nil {
			k.close()
			return nil, fmt.Errorf("read the set %s of the table ip %s: %w", s.name(), k.table, err)
		}
		for _, h := range have {
			e := element{elementKey: elementKey{set: s}}
			copy(e.key[:], h.Key)
			copy(e.val[:], h.Val)
			if len(h.KeyEnd) == len(e.key) {
				copy(e.last[:], h.KeyEnd[12:])
			}
			out = append(out, e)
		}
	}
	return out, nil
}

// destroy removes the table.
func (k *kernel) destroy() error {
	conn, err := k.open()
	if err != nil {
		return err
	}
	t := newTransaction(conn, k.table)
	conn.AddTable(t.table)
	conn.DelTable(t.table)
	return k.flush("remove")
}

// transaction collects changes of the table.
type transaction struct {
	conn  *nftables.Conn
	table *nftables.Table
	sets  [setCount]*nftables.Set
	// objects counts the chains and sets.
	objects int
	err     error
}

func newTransaction(conn *nftables.Conn, name string) *transaction {
	t := &transaction{conn: conn, table: &nftables.Table{Name: name, Family: family}}
	for s := services; s < setCount; s++ {
		layout := layouts[s]
		layout.Table, layout.ID = t.table, uint32(s)
		t.sets[s] = &layout
	}
	return t
}

func (t *transaction) note(err error) { t.err = errors.Join(t.err, err) }

// change adds a change: what is new exists before something leads to it, and what goes goes last.
func (t *transaction) change(c *change) {
	for _, cl := range c.addClasses {
		writeClass(t, cl)
	}
	t.elements(c.remove, t.conn.SetDeleteElements)
	t.elements(c.add, t.conn.SetAddElements)
	for _, cl := range c.removeClasses {
		t.note(t.conn.SetDeleteElements(t.sets[verdicts], []nftables.SetElement{{
			Key: words(cl.number), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: cl.chain()}}}))
	}
	for _, cl := range c.removeClasses {
		t.conn.DelChain(&nftables.Chain{Table: t.table, Name: cl.chain()})
	}
}

// elements sends elements, which are sorted by set, in messages that are not too long.
func (t *transaction) elements(es []element, send func(*nftables.Set, []nftables.SetElement) error) {
	part := make([]nftables.SetElement, 0, min(len(es), maxElements))
	for i := 0; i < len(es); {
		s := es[i].set
		part = part[:0]
		for ; i < len(es) && es[i].set == s && len(part) < maxElements; i++ {
			part = append(part, es[i].encode())
		}
		t.note(send(t.sets[s], part))
	}
}

func (e *element) encode() nftables.SetElement {
	layout := &layouts[e.set]
	out := nftables.SetElement{Key: e.key[:layout.KeyType.Bytes]}
	if layout.IsMap {
		out.Val = e.val[:layout.DataType.Bytes]
	}
	if layout.Interval {
		end := e.key
		copy(end[12:], e.last[:])
		out.KeyEnd = end[:layout.KeyType.Bytes]
	}
	return out
}

func (t *transaction) read(s set) ([]nftables.SetElement, error) {
	return t.conn.GetSetElements(t.sets[s])
}

func (t *transaction) addTable() { t.conn.AddTable(t.table) }

func (t *transaction) addSet(s set) {
	t.objects++
	t.note(t.conn.AddSet(t.sets[s], nil))
}

func (t *transaction) addChain(name string) {
	t.objects++
	t.conn.AddChain(&nftables.Chain{Table: t.table, Name: name})
}

// emptyChain removes the rules of a chain.
func (t *transaction) emptyChain(name string) {
	t.conn.FlushChain(&nftables.Chain{Table: t.table, Name: name})
}

func (t *transaction) addBase(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority int32) {
	t.objects++
	t.conn.AddChain(&nftables.Chain{Table: t.table, Name: name, Type: kind, Hooknum: hook, Priority: nftables.ChainPriorityRef(nftables.ChainPriority(priority))})
}

// addNoted adds a rule with a comment, which nft shows.
func (t *transaction) addNoted(chain, comment string, parts ...[]expr.Any) {
	t.conn.AddRule(&nftables.Rule{Table: t.table, Chain: &nftables.Chain{Table: t.table, Name: chain}, Exprs: join(parts...),
		UserData: userdata.AppendString(nil, userdata.TypeComment, comment)})
}

func (t *transaction) addRule(chain string, parts ...[]expr.Any) {
	t.conn.AddRule(&nftables.Rule{Table: t.table, Chain: &nftables.Chain{Table: t.table, Name: chain}, Exprs: join(parts...)})
}

func (t *transaction) addVerdict(number uint32, chain string) {
	t.note(t.conn.SetAddElements(t.sets[verdicts], []nftables.SetElement{{
		Key: words(number), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}}))
}

func secondsOf(n uint32) time.Duration { return time.Duration(n) * time.Second }
