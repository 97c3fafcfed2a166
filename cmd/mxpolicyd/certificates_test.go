package main

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"testing"
)

// A certificate with a negative serial number is read: with others' mail
// servers in view the parser's strictness would only cost TLS.
func TestNegativeSerialNumber(t *testing.T) {
	text, err := os.ReadFile("testdata/negative-serial.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		t.Errorf("the program would refuse it: %v", err)
	}
}
