//! The page about `host.yaml`, made of the tables that its reader goes by.

use super::Settings;
use super::keys::{Effect, KEYS, SETTINGS};
use crate::yaml::leaves;
use std::fmt::Write;

const BEGINNING: &str = "\
# host.yaml

Made by `ringfence schema host --markdown` from the tables that the reader goes by; do not edit.

What an operator decides about a host, given as `ringfence serve --host-config host.yaml`. Every key may be left out. A flag of
`serve` with the same meaning wins over the file. Relative paths begin at the file's folder; the default of `data_dir` at the
folder where the host is started. Times are a whole number and `ms`, `s`, `m` or `h`; bytes are Kubernetes quantities such as
`16Mi`. Everybody being able to write to the file is an error, and so is a key that is not in this list.

`ringfence serve --check` reads the file, the TLS files, the data directory's permissions and the model folders, takes the address for a
moment, and prints `ok`, or what is wrong, with exit code 2. `ringfence schema host` prints a JSON Schema for editors.

SIGHUP reads the file and the TLS files again. What takes effect at once is marked; a change of anything else is named in the
log and waits for the next start. When anything is wrong with the file or the TLS files, the old settings stay, all of them.

| key | value | default | takes effect | what |
|---|---|---|---|---|
";

const END: &str = "
The TLS key may be read by its owner alone, or, where that is root, by its group too. New connections get a new certificate,
new limits and new times; open ones keep theirs.

```yaml
listen: 0.0.0.0:8443
data_dir: /var/lib/ringfence
tls:
  certificate: tls/fullchain.pem
  key: tls/privkey.pem
drain_timeout: 1m
log: {format: json}
jail: required
```

A certificate for trying it out, which clients believe that name it as their CA (`--ca-file`, `RINGFENCE_CA_FILE`):

```sh
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 90 -subj /CN=localhost \\
  -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \\
  -keyout privkey.pem -out fullchain.pem
```
";

/// The page, in Markdown.
pub fn markdown() -> String {
    let defaults = Settings::default();
    let mut page = BEGINNING.to_owned();
    for (leaf, setting) in leaves(&KEYS).iter().zip(&SETTINGS) {
        let default = match (setting.shown)(&defaults) {
            none if none.is_empty() => "none".to_owned(),
            value => format!("`{value}`"),
        };
        let effect = match setting.effect {
            Effect::AtOnce(_) => "at once",
            Effect::AtRestart => "at the next start",
        };
        // Writing to a text cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | {default} | {effect} | {} |",
            leaf.path,
            leaf.key.form.describe(),
            leaf.key.help
        );
    }
    page + END
}
