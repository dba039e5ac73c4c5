package dnspersist

import (
	"fmt"
	"os"
	"regexp"
	goruntime "runtime"
	"strings"

	"go.uber.org/zap"
)

// fileSecret is Caddy's placeholder for the content of a file.
var fileSecret = regexp.MustCompile(`\{file\.([^{}]+)\}`)

// literalSecrets lists the options that hold a secret in the configuration itself, with what
// the secret is. It is called before placeholders are expanded.
func literalSecrets(iss *Issuer) map[string]string {
	found := make(map[string]string)
	if strings.Contains(iss.AccountKey, "-----BEGIN") {
		found["account_key"] = "a private key"
	}
	if eab := iss.ExternalAccount; eab != nil && eab.MACKey != "" && !strings.Contains(eab.MACKey, "{") {
		found["eab"] = "the MAC key of the account at the CA"
	}
	return found
}

// secretFiles lists the files that secrets are read from.
func secretFiles(iss *Issuer) []string {
	texts := []string{iss.AccountKey}
	if iss.ExternalAccount != nil {
		texts = append(texts, iss.ExternalAccount.MACKey)
	}
	var files []string
	for _, text := range texts {
		for _, match := range fileSecret.FindAllStringSubmatch(text, -1) {
			files = append(files, match[1])
		}
	}
	return files
}

// warnSecrets names options that hold secrets for anybody who reads the configuration.
func warnSecrets(logger *zap.Logger, found map[string]string) {
	for option, what := range found {
		logger.Warn(option+" holds "+what+" in the configuration, where anybody who reads the configuration finds it; use a placeholder such as {file./path/to/secret} or {env.NAME}",
			zap.String("option", option))
	}
}

// warnSecretFiles names files with secrets that other users of this machine can read.
func (a *App) warnSecretFiles(files []string) {
	for _, path := range files {
		if others := readableByOthers(path); others != "" {
			a.logger.Warn("a file with a secret can be read by other users of this machine; take that right from them (chmod 600)",
				zap.String("file", path), zap.String("mode", others))
		}
	}
}

// readableByOthers returns the mode of a file that everybody can read; else nothing. Where
// modes say nothing there is nothing to tell, and groups are often made for that.
func readableByOthers(path string) string {
	if goruntime.GOOS == "windows" {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o004 == 0 {
		return ""
	}
	return fmt.Sprintf("%#o", info.Mode().Perm())
}
