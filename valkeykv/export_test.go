package valkeykv

// What tests look at from outside.
var (
	Seal   = seal
	Unseal = unseal
)

const Magic = magic

// Script returns a script made of the named files and a body of its own.
func Script(body string, names ...string) string { return newScript(names...).body + body }

// ParseSelf returns what a node says of itself in the text of CLUSTER NODES.
func ParseSelf(text string) (id string, epoch uint64, ranges [][2]int, moving bool) {
	n := parseSelf(text)
	for _, r := range n.slots {
		ranges = append(ranges, [2]int{r.first, r.last})
	}
	return n.id, n.epoch, ranges, n.moving
}

// ParsePosition says whether text is a position of a page, and whether that is the same after it was written anew.
func ParsePosition(text string) (ok, same bool) {
	p, err := parsePosition(text)
	if err != nil {
		return false, false
	}
	again, err := parsePosition(p.text(-1))
	return true, err == nil && again == p
}

// Claim is what a node says that it holds.
type Claim struct {
	ID          string
	Epoch       uint64
	First, Last int
}

// Believe returns the nodes that are believed after they have claimed slots in turn, and a slot that nobody holds.
func Believe(claims ...Claim) (ids []string, uncoveredSlot int) {
	var nodes []node
	for _, c := range claims {
		n := node{id: c.ID, epoch: c.Epoch}
		if c.Last > 0 {
			n.slots = []slotRange{{c.First, c.Last}}
		}
		nodes = add(nodes, n)
	}
	for _, n := range nodes {
		ids = append(ids, n.id)
	}
	return ids, uncovered(nodes)
}
