"""Reads reports as a receiver does that has nothing of mxpipe's: by the mail
package of Python, dkimpy, and a JSON schema of RFC 8460. Standard input is
JSON: schema, a list of reports (texts) or mails (base64), and the public DKIM
key. Standard output is what was read."""
import base64, datetime, email, email.policy, gzip, json, re, sys
import jsonschema

given = json.load(sys.stdin)
schema = jsonschema.Draft202012Validator(given["schema"])


def check(report):
    """What section 4 asks for beyond the schema."""
    schema.validate(report)
    span = report["date-range"]
    begin, end = (datetime.datetime.strptime(span[k], "%Y-%m-%dT%H:%M:%SZ") for k in ("start-datetime", "end-datetime"))
    assert end - begin == datetime.timedelta(days=1, seconds=-1), span
    for policy in report["policies"]:
        failed = sum(f["failed-session-count"] for f in policy.get("failure-details", []))
        assert failed <= policy["summary"]["total-failure-session-count"], policy
    return begin, end


def mail(raw):
    """A mail by section 5.3: the report, its name, and who signed it."""
    import dkim
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert not message.defects and message.get_content_type() == "multipart/report", message.defects
    assert message.get_param("report-type") == "tlsrpt"
    text, part = message.iter_parts()
    assert text.get_content_type() == "text/plain" and part.get_content_type() == "application/tlsrpt+gzip"
    report = json.loads(gzip.decompress(part.get_content()))
    begin, end = check(report)
    sender, domain, since, until, unique = part.get_filename().removesuffix(".json.gz").split("!")
    assert part.get_filename().endswith(".json.gz") and re.fullmatch("[A-Za-z0-9]+", unique)
    seconds = [int(t.replace(tzinfo=datetime.timezone.utc).timestamp()) for t in (begin, end)]
    assert [int(since), int(until)] == seconds, part.get_filename()
    assert message["TLS-Report-Domain"] == domain and message["TLS-Report-Submitter"] == sender
    assert message["TLS-Required"] == "No" and message["Date"].datetime
    assert re.fullmatch(r"Report Domain: %s\s+Submitter: %s\s+Report-ID: <%s>" % tuple(map(re.escape, (domain, sender, report["report-id"]))), message["Subject"]), message["Subject"]
    signature = message["DKIM-Signature"] or ""
    signer = re.search(r"\bd=([^;\s]+)", signature)
    key = ("v=DKIM1; k=rsa; s=tlsrpt; p=" + given["key"]).encode()
    # tlsrpt="strict": the key must be one for reports (section 3).
    verified = bool(signer) and dkim.DKIM(raw, tlsrpt="strict").verify(dnsfunc=lambda name, timeout=5: key)
    return {"report": report, "domain": domain, "sender": sender, "from": message["From"], "verified": verified, "signer": signer and signer[1]}


out = []
for text in given.get("reports", []):
    check(json.loads(text))
for text in given.get("mails", []):
    out.append(mail(base64.b64decode(text)))
print(json.dumps(out))
