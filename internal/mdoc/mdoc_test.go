package mdoc

import (
	"reflect"
	"testing"
)

const page = `.Sh OTHER
.Bl -tag
.It Ic not.this
.El
.Sh KEYS
An introduction.
.Ss Some
.Bl -tag -width Ds
.It Ic dns.timeout
Value: a duration.
Default:
.Ql 5s .
.Pp
Its text, see
.Xr mxpolicyd 8 ,
has a \&.dot.
.Bd -literal -offset indent
dns: {timeout: \(dq2s\(dq}
.Ed
.It Fl f Ar address , Fl -sender Ar address
.It Fl -orcpt Ar type Ns \&; Ns Ar address
Second.
.El
Not of an item.
.Sh NEXT
.Bl -tag
.It Ic nor.this
.El
`

func TestItems(t *testing.T) {
	want := []Item{
		{Head: "dns.timeout", Text: "Value: a duration. Default: 5s. Its text, see mxpolicyd(8), has a .dot.", Displays: []string{"dns: {timeout: \"2s\"}\n"}},
		{Head: "-f address, --sender address"},
		{Head: "--orcpt type;address", Text: "Second."},
	}
	got := Items(page, "KEYS")
	for i := range got {
		if i >= len(want) || !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("item %d is %+v", i, got[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d items, want %d", len(got), len(want))
	}
}
