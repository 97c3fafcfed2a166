package mtasts

import (
	"errors"
	"strings"
	"testing"
)

func TestParseRecord(t *testing.T) {
	id32 := strings.Repeat("aZ09", 8)
	tests := []struct {
		name string // with the section of RFC 8461, where no other is named
		txts []string
		id   string
		err  error
	}{
		{"§3.1 the RFC's example", []string{"v=STSv1; id=20160831085700Z;"}, "20160831085700Z", nil},
		{"§3.1 no semicolon at the end", []string{"v=STSv1; id=1"}, "1", nil},
		{"§3.1 no blanks", []string{"v=STSv1;id=1;"}, "1", nil},
		{"§3.1 blanks and tabs around semicolons", []string{"v=STSv1;\t id=1 \t;\t "}, "1", nil},
		{"§3.1 ABNF: a blank before the first semicolon", []string{"v=STSv1 ; id=1"}, "1", nil},
		{"§3.1 prose: such a record yields to an exact one", []string{"v=STSv1 ; id=1", "v=STSv1; id=2"}, "2", nil},
		{"§3.1 id of 32 characters", []string{"v=STSv1; id=" + id32}, id32, nil},
		{"§3.1 id of 33 characters", []string{"v=STSv1; id=" + id32 + "x"}, "", ErrMalformed},
		{"§3.1 empty id", []string{"v=STSv1; id=;"}, "", ErrMalformed},
		{"§3.1 id with a dash", []string{"v=STSv1; id=2016-08-31"}, "", ErrMalformed},
		{"§3.1 id with a blank after =", []string{"v=STSv1; id= 1"}, "", ErrMalformed},
		{"§3.1 id beyond ASCII", []string{"v=STSv1; id=\u0661"}, "", ErrMalformed},
		{"§3.1 no id", []string{"v=STSv1; a=b;"}, "", ErrMalformed},
		{"§3.1 nothing but the version", []string{"v=STSv1;"}, "", ErrMalformed},
		{"§3.1 the version without a semicolon is discarded", []string{"v=STSv1"}, "", ErrNoRecord},
		{"§3.1 ID in capitals is an extension", []string{"v=STSv1; ID=1"}, "", ErrMalformed},
		{"§3.1 version in small letters", []string{"v=stsv1; id=1"}, "", ErrNoRecord},
		{"§3.1 V in capitals", []string{"V=STSv1; id=1"}, "", ErrNoRecord},
		{"§3.1 a later version", []string{"v=STSv2; id=1"}, "", ErrNoRecord},
		{"§3.1 a version that begins alike", []string{"v=STSv10; id=1"}, "", ErrNoRecord},
		{"§3.1 the version must be first", []string{"id=1; v=STSv1;"}, "", ErrNoRecord},
		{"§3.1 a blank before the version", []string{" v=STSv1; id=1"}, "", ErrNoRecord},
		{"§3.1 no TXT record at all", nil, "", ErrNoRecord},
		{"§3.1 an empty one", []string{""}, "", ErrNoRecord},
		{"§3.1 other records beside it", []string{"v=spf1 -all", "v=STSv1; id=1;", "google-site-verification=x"}, "1", nil},
		{"§3.1 only others", []string{"v=spf1 -all", "v=TLSRPTv1; rua=mailto:a@b"}, "", ErrNoRecord},
		{"§3.1 two records", []string{"v=STSv1; id=1;", "v=STSv1; id=2;"}, "", ErrSeveralRecords},
		{"§3.1 the same record twice", []string{"v=STSv1; id=1;", "v=STSv1; id=1;"}, "", ErrSeveralRecords},
		{"§3.1 a broken second one makes two as well", []string{"v=STSv1; id=1;", "v=STSv1;"}, "", ErrSeveralRecords},
		{"§3.1 extension after the id", []string{"v=STSv1; id=1; x-y_z.0=a:b/c,d"}, "1", nil},
		{"§3.1 extension before the id", []string{"v=STSv1; foo=bar; id=1"}, "1", nil},
		{"§3.1 extension named like a number", []string{"v=STSv1; 1=2; id=1"}, "1", nil},
		{"§3.1 extension name of 32 characters", []string{"v=STSv1; id=1; " + id32 + "=x"}, "1", nil},
		{"§3.1 extension name of 33 characters", []string{"v=STSv1; id=1; " + id32 + "x=x"}, "", ErrMalformed},
		{"§3.1 extension name begins with _", []string{"v=STSv1; id=1; _a=x"}, "", ErrMalformed},
		{"§3.1 extension without =", []string{"v=STSv1; id=1; foo"}, "", ErrMalformed},
		{"§3.1 extension without value", []string{"v=STSv1; id=1; foo="}, "", ErrMalformed},
		{"§3.1 extension value with =", []string{"v=STSv1; id=1; foo=a=b"}, "", ErrMalformed},
		{"§3.1 extension value with a blank", []string{"v=STSv1; id=1; foo=a b"}, "", ErrMalformed},
		{"§3.1 extension value with a control character", []string{"v=STSv1; id=1; foo=a\x07"}, "", ErrMalformed},
		{"§3.1 extension value beyond ASCII", []string{"v=STSv1; id=1; foo=\u00e9"}, "", ErrMalformed},
		{"§3.1 two semicolons", []string{"v=STSv1;; id=1"}, "", ErrMalformed},
		{"§3.1 two semicolons at the end", []string{"v=STSv1; id=1;;"}, "", ErrMalformed},
		{"§3.1 a blank at the end without semicolon", []string{"v=STSv1; id=1 "}, "", ErrMalformed},
		{"§3.2 of duplicates the first counts", []string{"v=STSv1; id=1; id=2"}, "1", nil},
		{"§3.2 the second need not be an id", []string{"v=STSv1; id=1; id=2-3"}, "1", nil},
		{"§3.2 the first must be one", []string{"v=STSv1; id=2-3; id=1"}, "", ErrMalformed},
		{"§3.2 a second version is ignored", []string{"v=STSv1; v=STSv2; id=1"}, "1", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec, err := ParseRecord(tt.txts)
			if !errors.Is(err, tt.err) || rec.ID != tt.id {
				t.Errorf("ParseRecord(%q) = %q, %v; want %q, %v", tt.txts, rec.ID, err, tt.id, tt.err)
			}
		})
	}
}

func TestSeveralRecordsCountAsNone(t *testing.T) {
	if !errors.Is(ErrSeveralRecords, ErrNoRecord) {
		t.Error("ErrSeveralRecords is no ErrNoRecord")
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add("v=STSv1; id=20160831085700Z;", "v=spf1 -all")
	f.Add("v=STSv1; id=1; a=b; id=2", "")
	f.Add("v=STSv1 ; id=1", "v=STSv1;id=2")
	f.Fuzz(func(t *testing.T, one, two string) {
		rec, err := ParseRecord([]string{one, two})
		if err != nil {
			if rec != (Record{}) {
				t.Errorf("a record %q beside the error %v", rec.ID, err)
			}
			return
		}
		if !isID(rec.ID) {
			t.Errorf("the id %q is not 1 to 32 letters and digits", rec.ID)
		}
		if again, err := ParseRecord([]string{"v=STSv1; id=" + rec.ID}); err != nil || again != rec {
			t.Errorf("the id %q does not survive: %q, %v", rec.ID, again.ID, err)
		}
	})
}
