package e2e

import "strings"

// tlsServer is a row of the matrix: a server, and what there is to be said when
// mxpolicyd reaches less of it than Postfix does.
type tlsServer struct {
	name   string // as the page has it
	key    string // of shownKeys; "": rsa
	by     library
	config string // options of s_server or smtpd(8), or a GnuTLS priority
	// less is why mxpolicyd gets less than Postfix; "": it does not.
	less string
	// brief: "make test" plays it too.
	brief bool
}

// library is whose TLS a server has.
type library string

// The libraries, by the program that uses them.
const (
	openSSL   library = "OpenSSL"     // s_server, of this machine
	openSSL35 library = "OpenSSL 3.5" // s_server, Debian 13's
	openSSL11 library = "OpenSSL 1.1" // s_server, Debian 11's
	gnuTLS    library = "Exim"        // Debian's, with GnuTLS
	postfixes library = "Postfix"
)

// Why mxpolicyd reaches less.
const (
	noDHE      = "finite-field Diffie-Hellman"
	noCipher   = "the cipher"
	noGroup    = "the group"
	noKey      = "the kind of key"
	noSHA1     = "SHA-1 signatures (RFC 9155)"
	noAnon     = "ciphers without a certificate"
	tooOld     = "by design: below TLS 1.2 where TLS is required (RFC 8996)"
	needsNoSNI = "by design: no hello without a name where TLS is required"
)

// tlsServers are all rows.
func tlsServers() []tlsServer {
	v12 := func(cipher string) string { return "-tls1_2 -cipher " + cipher + ":@SECLEVEL=0" }
	const any = "-cipher DEFAULT:@SECLEVEL=0 "
	gnu := func(s string) string { return "NORMAL:" + s }
	gnu12 := func(s string) string { return "NORMAL:-VERS-ALL:+VERS-TLS1.2" + s }
	rows := []tlsServer{
		{name: "everything", config: any, brief: true},
		{name: "TLS 1.3 only", config: any + "-tls1_3"},
		{name: "TLS 1.2 only", config: any + "-tls1_2"},
		{name: "TLS 1.1 only", config: any + "-tls1_1", less: tooOld},
		{name: "TLS 1.0 only", config: any + "-tls1", less: tooOld, brief: true},
		{name: "RSA key exchange, GCM", config: v12("AES128-GCM-SHA256")},
		{name: "RSA key exchange, AES-128-CBC", config: v12("AES128-SHA")},
		{name: "RSA key exchange, AES-256-CBC", config: v12("AES256-SHA"), brief: true},
		{name: "RSA key exchange, AES-128-CBC-SHA256", config: v12("AES128-SHA256")},
		{name: "RSA key exchange, AES-256-CBC-SHA256", config: v12("AES256-SHA256"), less: noCipher},
		{name: "ECDHE, AES-128-CBC", config: v12("ECDHE-RSA-AES128-SHA")},
		{name: "ECDHE, AES-128-CBC-SHA256", config: v12("ECDHE-RSA-AES128-SHA256")},
		{name: "ECDHE, AES-256-CBC-SHA384", config: v12("ECDHE-RSA-AES256-SHA384"), less: noCipher},
		{name: "ECDHE, AES-128-CBC-SHA256, ECDSA", key: "p256", config: v12("ECDHE-ECDSA-AES128-SHA256")},
		{name: "ECDHE, ChaCha20-Poly1305", config: v12("ECDHE-RSA-CHACHA20-POLY1305")},
		{name: "ECDHE, CCM", key: "p256", config: v12("ECDHE-ECDSA-AES128-CCM"), less: noCipher},
		{name: "ECDHE, Camellia", config: v12("ECDHE-RSA-CAMELLIA128-SHA256"), less: noCipher},
		{name: "ECDHE, ARIA", config: v12("ECDHE-ARIA128-GCM-SHA256"), less: noCipher},
		{name: "DHE, GCM", config: v12("DHE-RSA-AES128-GCM-SHA256"), less: noDHE, brief: true},
		{name: "DHE, CBC, TLS 1.0", config: "-tls1 -cipher DHE-RSA-AES128-SHA:@SECLEVEL=0", less: noDHE},
		{name: "anonymous ECDHE", config: "-tls1_2 -nocert -cipher AECDH-AES128-SHA:@SECLEVEL=0", less: noAnon},
		{name: "anonymous DHE", config: "-tls1_2 -nocert -cipher ADH-AES128-SHA256:@SECLEVEL=0", less: noAnon},
		{name: "signs with SHA-1 only", config: v12("ECDHE-RSA-AES128-GCM-SHA256") + " -sigalgs RSA+SHA1", less: noSHA1},
		{name: "signs with RSA-PSS only, TLS 1.2", config: v12("ECDHE-RSA-AES128-GCM-SHA256") + " -sigalgs rsa_pss_rsae_sha256"},
		{name: "group X25519", config: any + "-groups X25519"},
		{name: "group P-256", config: any + "-groups P-256"},
		{name: "group P-384", config: any + "-groups P-384"},
		{name: "group P-521", config: any + "-groups P-521"},
		{name: "group X448", config: any + "-groups X448", less: noGroup},
		{name: "group X448 or RSA key exchange", config: any + "-groups X448 -tls1_2"},
		{name: "certificate with an RSA key of 1,024 bits", key: "rsa1024", config: any},
		{name: "certificate with an RSA key of 512 bits", key: "rsa512", config: any + "-tls1_2", less: noKey},
		{name: "certificate with an RSA exponent over 31 bits", key: "rsa-e", config: any, less: noKey},
		{name: "certificate with an RSA-PSS key", key: "rsa-pss", config: any, less: noKey},
		{name: "certificate with a key on P-384", key: "p384", config: any},
		{name: "certificate with a key on P-521", key: "p521", config: any},
		{name: "certificate with a key on P-224", key: "p224", config: any + "-tls1_2"},
		{name: "certificate with a key on brainpoolP256r1", key: "brainpool", config: any + "-tls1_2"},
		{name: "certificate with a key on secp256k1", key: "secp256k1", config: any + "-tls1_2"},
		{name: "certificate with explicit parameters of P-256", key: "explicit", config: any + "-tls1_2", less: noKey},
		{name: "certificate with an Ed25519 key", key: "ed25519", config: any},
		{name: "certificate with an Ed448 key", key: "ed448", config: any, less: noKey},
		{name: "asks for a client certificate", config: any + "-verify 1"},
		{name: "requires a client certificate, TLS 1.2", config: any + "-tls1_2 -Verify 1"},
		{name: "requires a client certificate, TLS 1.3", config: any + "-Verify 1"},
		{name: "no tickets", config: any + "-no_ticket"},
		{name: "four tickets", config: any + "-num_tickets 4"},
		{name: "middlebox compatibility off", config: any + "-no_middlebox"},
		{name: "padded records", config: any + "-record_padding 512"},
		{name: "refuses names that it does not know", config: any + "-servername other.example -servername_fatal -cert2 CERT -key2 KEY", less: needsNoSNI, brief: true},
		{name: "everything", by: gnuTLS, config: "NORMAL", brief: true},
		{name: "TLS 1.3 only", by: gnuTLS, config: gnu("-VERS-ALL:+VERS-TLS1.3")},
		{name: "TLS 1.2 only", by: gnuTLS, config: gnu12("")},
		{name: "TLS 1.1 only", by: gnuTLS, config: gnu("-VERS-ALL:+VERS-TLS1.1"), less: tooOld},
		{name: "TLS 1.0 only", by: gnuTLS, config: gnu("-VERS-ALL:+VERS-TLS1.0"), less: tooOld},
		{name: "RSA key exchange", by: gnuTLS, config: gnu12(":-KX-ALL:+RSA"), brief: true},
		{name: "DHE", by: gnuTLS, config: gnu12(":-KX-ALL:+DHE-RSA"), less: noDHE},
		{name: "CBC", by: gnuTLS, config: gnu12(":-CIPHER-ALL:+AES-128-CBC")},
		{name: "CBC-SHA256", by: gnuTLS, config: gnu12(":-CIPHER-ALL:+AES-128-CBC:-MAC-ALL:+SHA256")},
		{name: "CCM", by: gnuTLS, config: gnu12(":-CIPHER-ALL:+AES-128-CCM"), less: noCipher},
		{name: "3DES", by: gnuTLS, config: gnu12(":-CIPHER-ALL:+3DES-CBC")},
		{name: "group X448", by: gnuTLS, config: gnu("-GROUP-ALL:+GROUP-X448:-KX-ALL:+ECDHE-RSA"), less: noGroup},
		{name: "group FFDHE2048, TLS 1.3", by: gnuTLS, config: gnu("-GROUP-ALL:+GROUP-FFDHE2048:-VERS-ALL:+VERS-TLS1.3")},
		{name: "no tickets", by: gnuTLS, config: gnu("%NO_TICKETS")},
		{name: "no safe renegotiation", by: gnuTLS, config: gnu12(":%DISABLE_SAFE_RENEGOTIATION")},
		{name: "as it comes", by: postfixes, brief: true},
		{name: "TLS 1.0 only", by: postfixes, config: "smtpd_tls_protocols=TLSv1 smtpd_tls_mandatory_protocols=TLSv1", less: tooOld},
		{name: "TLS 1.1 only", by: postfixes, config: "smtpd_tls_protocols=TLSv1.1", less: tooOld},
		{name: "TLS 1.2 only", by: postfixes, config: "smtpd_tls_protocols=TLSv1.2"},
		{name: "TLS 1.3 only", by: postfixes, config: "smtpd_tls_protocols=TLSv1.3"},
		{name: "an ECDSA certificate", key: "p256", by: postfixes},
		{name: "RSA key exchange", by: postfixes, config: "smtpd_tls_protocols=TLSv1.2 tls_medium_cipherlist=AES128-SHA"},
		{name: "DHE", by: postfixes, config: "smtpd_tls_protocols=TLSv1.2 tls_medium_cipherlist=DHE-RSA-AES128-SHA", less: noDHE},
		{name: "ciphers high, eecdh none", by: postfixes, config: "smtpd_tls_ciphers=high smtpd_tls_eecdh_grade=none"},
		{name: "asks for a client certificate", by: postfixes, config: "smtpd_tls_ask_ccert=yes"},
		{name: "group X25519MLKEM768", by: openSSL35, config: any + "-groups X25519MLKEM768"},
		{name: "group SecP256r1MLKEM768", by: openSSL35, config: any + "-groups SecP256r1MLKEM768"},
		{name: "group SecP384r1MLKEM1024", by: openSSL35, config: any + "-groups SecP384r1MLKEM1024"},
		{name: "group MLKEM768", by: openSSL35, config: any + "-groups MLKEM768"},
		{name: "everything", by: openSSL35, config: any},
		{name: "TLS 1.2 only", by: openSSL35, config: any + "-tls1_2"},
		{name: "TLS 1.0 only", by: openSSL35, config: any + "-tls1", less: tooOld},
		{name: "everything", by: openSSL11, config: any},
		{name: "TLS 1.2 only", by: openSSL11, config: any + "-tls1_2"},
		{name: "TLS 1.1 only", by: openSSL11, config: any + "-tls1_1", less: tooOld},
		{name: "TLS 1.0 only", by: openSSL11, config: any + "-tls1", less: tooOld},
		{name: "RSA key exchange", by: openSSL11, config: v12("AES256-SHA")},
		{name: "DHE", by: openSSL11, config: v12("DHE-RSA-AES256-SHA"), less: noDHE},
	}
	for i := range rows {
		r := &rows[i]
		if r.by == "" {
			r.by = openSSL
		}
		if r.key == "" {
			r.key = "rsa"
		}
		if strings.HasPrefix(string(r.by), "OpenSSL") {
			r.config = strings.TrimSpace(r.config)
		}
	}
	return rows
}
