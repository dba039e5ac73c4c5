package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/formats"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// recordFormats are the outputs of the command records.
func recordFormats() []string {
	all := []string{"table", "json"}
	for _, f := range formats.All {
		all = append(all, string(f))
	}
	return all
}

const recordsHelp = `
Prints the TXT record for each validation name that the given names need, or
all that the configuration manages: before any order, after a check of the
account at the CA.

	table      for people
	json       all there is to know
	zone       lines for a BIND zone file, to be added to it
	nsupdate   a script for nsupdate, which only adds
	route53    a change batch for aws route53
	           change-resource-record-sets; where there are too many names
	           for one, or several zones, one document for each
	octodns    YAML for octoDNS, one document for each zone
	terraform  a .tfvars.json with a map for for_each

route53, octodns and terraform set all values of a name at once: their output
carries what is published in DNS today as well, so that applying it removes
nobody's value, and the command fails for a name whose servers do not answer.
DNS is read for them, for nsupdate, and for up to 100 names also for the
others, unless --dns is always or never. A name that is an alias (CNAME) gets
its record at the alias' target, if that is in the zone of the name itself.
One that leads elsewhere is left out of what is for other tools, with a
warning: whoever owns the name chooses where it leads. --follow-aliases puts
it out all the same. What the servers of a name do not agree about is never
followed.

Where the configuration delegates validation names (delegate_to), the CNAME
that the owner of each domain has to set is printed beside the record at its
target; --only CNAME or --only TXT prints the ones or the others. An alias
that leads elsewhere is left out of what is for other tools, with a warning.

On a terminal that is narrower than the table each record is printed as the
panels of DNS providers ask for it. --value prints the value alone.

--until gives the records an end, from which on the CA validates nothing by
them: a time (2027-06-01T12:00:00Z), the beginning of a day (2027-06-01, UTC),
the seconds of Unix that the record itself has, or how long from now (180d,
4320h). Nobody renews such a record but whoever publishes it: replace it
before a renewal needs it. With a DNS provider persist_for does so.

With --account-url and --issuer no storage, configuration or CA is needed;
records of draft -02 take --account-hash-prefix and --thumbprint as well,
delegated ones --delegate-to.

With --standby FILE a second account's value comes beside the first's; FILE is
what ` + "`account --json`" + ` has printed where that account is bound.`

func recordsCommand() *cobra.Command {
	cmd := newCommand("records [NAME… | -] [flags]", "Prints the records to publish, before any order", recordsHelp, runRecords)
	f := cmd.Flags()
	choice(f, "dns", "auto", "Whether to read what is published in DNS", "auto", "always", "never")
	f.String("standby", "", "File with what account --json has printed for a second account")
	f.String("account-url", "", "Make records for this account without a configuration")
	f.String("thumbprint", "", "Thumbprint of the account's key, with --account-hash-prefix")
	f.String("account-hash-prefix", "", "accountHashPrefix of the CA's directory: makes records of draft -02")
	f.String("issuer", "", "Issuer domain name of the CA, with --account-url")
	f.Bool("follow-aliases", false, "Put records also where the CNAMEs of the names lead, in whatever zone: whoever owns a name chooses that one")
	choice(f, "only", "", "Print only the records of one type, CNAME where names are delegated", "TXT", "CNAME")
	f.String("delegate-to", "", "With --account-url: the name below which validation names are delegated by CNAMEs")
	choice(f, "policy", acmepersist.PolicyAuto, "With --account-url", acmepersist.PolicyAuto, acmepersist.PolicyExact, acmepersist.PolicyWildcard)
	f.String("until", "", "When the records end (persistUntil): a time, a date or how long from now, such as 2027-06-01 or 180d")
	f.Bool("value", false, "Print the values alone, each on a line, to be copied")
	choice(f, "format", "table", "Output", recordFormats()...)
	cmd.MarkFlagsMutuallyExclusive("value", "format")
	cmd.MarkFlagsRequiredTogether("account-url", "issuer")
	cmd.MarkFlagsRequiredTogether("account-hash-prefix", "thumbprint")
	for _, flag := range []string{"config", "address", "ca", "standby"} {
		cmd.MarkFlagsMutuallyExclusive("account-url", flag)
	}
	cmd.ValidArgsFunction = completeNames
	cmd.Example = examples("records", "records example.com '*.example.com'", "records --format zone >> db.example.com",
		"records example.com --value | pbcopy", "records --until 180d", "records --format nsupdate | nsupdate -k key.conf", "records example.com --account-url https://ca.example/acct/1 --issuer ca.example")
	return cmd
}

func runRecords(r *run) error {
	format, only := r.text("format"), r.text("only")
	names, err := r.names()
	if err != nil {
		return err
	}
	rr := &recordsRun{run: r, format: format}
	if r.flag("value") {
		rr.format = formatValue
	}
	if err := rr.parseUntil(time.Now()); err != nil {
		return err
	}
	sets, err := rr.wantedSets(names)
	if err != nil {
		return err
	}
	if len(sets) == 0 {
		if formats.Format(format).Replaces() {
			// the tool would take an empty list for the wish that nothing is published
			return errors.New("the configuration manages no name with dns_persist, and nothing is put out for that: give the names as arguments or, after -, on standard input")
		}
		r.report("the configuration manages no name with dns_persist: give the names as arguments")
	}
	if only != "" {
		sets = slices.DeleteFunc(sets, func(s operator.RecordSet) bool { return s.Type != only })
	}
	rr.reportPresumed(sets)
	rr.reportUnread(sets)
	rr.reportOutliving(sets)
	if f := formats.Format(format); f.Replaces() && r.text("dns") == "never" {
		return fmt.Errorf("%s sets all values of a name at once, so what is published has to be read: leave --dns never out", format)
	}
	return rr.putOut(sets)
}

// formatValue is what --value prints: values and nothing else, for which DNS does not matter.
const formatValue = "value"

// recordsRun is one call of the command records.
type recordsRun struct {
	*run
	format string
	// until is when the records end; zero if they have no end.
	until time.Time
}

// putOut prints the sets.
func (r *recordsRun) putOut(sets []operator.RecordSet) error {
	switch r.format {
	case "json":
		return r.json(operator.RecordsReply{Records: sets, Failed: r.failed})
	case "table":
		return recordTable(r.out, sets)
	case formatValue:
		return r.putValues(sets)
	}
	return r.writeFormat(formats.Format(r.format), sets)
}

// reportPresumed names the issuer domain names that the CA has not confirmed yet, or does not list.
func (r *recordsRun) reportPresumed(sets []operator.RecordSet) {
	seen := make(map[string]bool)
	for _, s := range sets {
		for _, w := range s.Wanted {
			if w.Note != "" && !seen[w.Note] {
				seen[w.Note] = true
				r.report("warning: %s", w.Note)
			}
			if w.Presumed && !seen[w.CA] {
				seen[w.CA] = true
				r.report("note: %s has not shown yet which issuer domain name it wants; %s is from its caaIdentities, `caddy dns-persist probe --order NAME` makes sure", w.CA, w.IssuerDomainName)
			}
		}
	}
}

// reportUnread reports for which names it is not known what is published.
func (r *recordsRun) reportUnread(sets []operator.RecordSet) {
	if r.format != formatValue && len(sets) > 0 && !r.readsDNS(len(sets)) && r.text("dns") == "auto" {
		r.report("note: it was not looked up what is published in DNS, as there are over %d names: --dns always does", autoDNS)
	}
	if r.format == "table" || r.format == formatValue || formats.Format(r.format).Replaces() {
		return // it is in the table; there are none
	}
	unread, first := 0, ""
	for _, s := range sets {
		if s.DNS != nil && s.DNS.Error != "" && s.DNS.LeftOut == "" {
			if unread++; unread == 1 {
				first = s.Name + ": " + s.DNS.Error
			}
		}
	}
	if unread > 0 {
		r.report("warning: what is published could not be read at %d of %d names, whose records are put out as if nothing did; the first is %s", unread, len(sets), first)
	}
}

// wantedSets works out the records, and what is published at their names as far as it is read.
func (r *recordsRun) wantedSets(names []string) ([]operator.RecordSet, error) {
	if r.cmd.Flags().Changed("account-url") {
		sets, err := r.madeSets(names)
		if err == nil {
			err = r.endSets(sets)
		}
		if err == nil && r.readsDNS(len(sets)) {
			err = r.readBare(propagation.NewChecker(propagation.Config{}), sets)
		}
		return sets, err
	}
	for _, flag := range []string{"thumbprint", "account-hash-prefix", "delegate-to"} {
		if r.text(flag) != "" {
			return nil, fmt.Errorf("--%s makes records without a configuration only, with --account-url and --issuer", flag)
		}
	}
	src, sets, err := r.sets(names)
	if err == nil {
		err = r.endSets(sets)
	}
	if err == nil && r.readsDNS(len(sets)) {
		err = r.readPublished(src, sets)
	}
	return sets, err
}

// sets asks for the records.
func (r *recordsRun) sets(names []string) (src *client, sets []operator.RecordSet, err error) {
	path := r.text("standby")
	if path == "" {
		if src, err = r.source(); err != nil {
			return nil, nil, err
		}
		r.reportUnsupported(src.off, names)
		sets, err = r.records(src, names)
		return src, sets, err
	}
	standby, err := r.readStandby(path)
	if err != nil {
		return nil, nil, err
	}
	if src, err = r.inProcess(); err != nil {
		return nil, nil, err
	}
	r.reportUnsupported(src.off, names)
	reply, err := src.off.Records(r, r.text("ca"), names, standby...)
	return src, reply.Records, err
}

// readStandby reads the output of `account --json`.
func (r *recordsRun) readStandby(path string) ([]acmepersist.Account, error) {
	data, err := r.read("the standby account", path)
	if err != nil {
		return nil, err
	}
	var reply operator.AccountReply
	if err := json.Unmarshal(data, &reply); err != nil || len(reply.Accounts) == 0 {
		return nil, fmt.Errorf("reading the standby account: %s is not the output of `caddy dns-persist account --json`", path)
	}
	var all []acmepersist.Account
	for _, a := range reply.Accounts {
		if a.URL == "" || a.Thumbprint == "" {
			return nil, fmt.Errorf("reading the standby account: %s lacks a URL or a thumbprint", path)
		}
		if a.Status != "" && a.Status != "valid" {
			return nil, fmt.Errorf("reading the standby account: in %s %q is %s at its CA, so no record is made for it", path, a.URL, a.Status)
		}
		all = append(all, a.Account)
	}
	return all, nil
}

// readsDNS decides whether DNS is read.
func (r *recordsRun) readsDNS(n int) bool {
	switch r.text("dns") {
	case "always":
		return true
	case "never":
		return false
	}
	f := formats.Format(r.format)
	return r.format != formatValue && (f.Replaces() || f == formats.NSUpdate || n <= autoDNS)
}

// autoDNS is up to how many names DNS is read where the format does not need it.
const autoDNS = 100
