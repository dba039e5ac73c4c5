package fair

// Queue is a fair queue: each key has a line of its own, first come first served, and of
// those who wait the key is served that has used least, so that all who always wait get the
// same share, and one that seldom does is served at once. What was not used is not saved.
// (Goyal, Vin, Cheng: Start-time Fair Queueing, 1996.)
//
// The zero value is ready to use. It is meant for few keys, which are never forgotten; it is
// not safe for concurrent use.
type Queue[K comparable, T any] struct {
	lines []*line[K, T]
	used  float64 // by the key served last, before it was
}

type line[K comparable, T any] struct {
	key   K
	items []T
	used  float64
}

// Push lets an item wait under key.
func (q *Queue[K, T]) Push(key K, item T) {
	l := q.line(key)
	if len(l.items) == 0 {
		l.used = max(l.used, q.used)
	}
	l.items = append(l.items, item)
}

// Pop takes the next item of those under keys that may be served.
func (q *Queue[K, T]) Pop(may func(K) bool) (item T, ok bool) {
	var next *line[K, T]
	for _, l := range q.lines {
		if len(l.items) > 0 && (next == nil || l.used < next.used) && may(l.key) {
			next = l
		}
	}
	if next == nil {
		return item, false
	}
	q.used = max(q.used, next.used)
	item = next.items[0]
	var none T
	next.items[0] = none
	if next.items = next.items[1:]; len(next.items) == 0 {
		next.items = nil
	}
	return item, true
}

// Charge says that an item of key has used so much, or so much less than was said.
func (q *Queue[K, T]) Charge(key K, used float64) {
	q.line(key).used += used
}

// Len returns how many items wait.
func (q *Queue[K, T]) Len() (n int) {
	for _, l := range q.lines {
		n += len(l.items)
	}
	return n
}

func (q *Queue[K, T]) line(key K) *line[K, T] {
	for _, l := range q.lines {
		if l.key == key {
			return l
		}
	}
	l := &line[K, T]{key: key, used: q.used}
	q.lines = append(q.lines, l)
	return l
}
