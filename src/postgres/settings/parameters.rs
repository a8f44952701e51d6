//! Every parameter that libpq knows: taken, taken only where it changes nothing, or refused with the
//! reason. Ignoring one that an operator wrote would be a promise broken in silence.

/// What becomes of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    /// It is read. The variable is what psql would take it from when the text does not name it.
    Taken { variable: Option<&'static str> },
    /// Only these values, which say what happens anyway.
    Only { values: &'static [&'static str], why: &'static str },
    /// Not supported; what to do instead.
    Refused { why: &'static str },
}

const fn taken(variable: &'static str) -> Treatment {
    Treatment::Taken { variable: Some(variable) }
}

const UNSET: Treatment = Treatment::Taken { variable: None };

const fn refused(why: &'static str) -> Treatment {
    Treatment::Refused { why }
}

const OAUTH: Treatment = refused("OAuth is not supported; use a password or a client certificate");
const KERBEROS: Treatment =
    refused("Kerberos is not supported; use a password or a client certificate");
const CRL: Treatment = refused("revocation lists are not supported; use short-lived certificates");

/// All of them, by name.
pub(super) const PARAMETERS: &[(&str, Treatment)] = &[
    ("host", taken("PGHOST")),
    ("hostaddr", taken("PGHOSTADDR")),
    ("port", taken("PGPORT")),
    ("dbname", taken("PGDATABASE")),
    ("user", taken("PGUSER")),
    ("password", taken("PGPASSWORD")),
    ("passfile", taken("PGPASSFILE")),
    ("channel_binding", taken("PGCHANNELBINDING")),
    ("connect_timeout", taken("PGCONNECT_TIMEOUT")),
    ("options", taken("PGOPTIONS")),
    ("application_name", taken("PGAPPNAME")),
    ("fallback_application_name", UNSET),
    ("keepalives", UNSET),
    ("keepalives_idle", UNSET),
    ("keepalives_interval", UNSET),
    ("keepalives_count", UNSET),
    ("tcp_user_timeout", UNSET),
    ("sslmode", taken("PGSSLMODE")),
    ("sslrootcert", taken("PGSSLROOTCERT")),
    ("sslcert", taken("PGSSLCERT")),
    ("sslkey", taken("PGSSLKEY")),
    ("sslnegotiation", taken("PGSSLNEGOTIATION")),
    ("ssl_min_protocol_version", taken("PGSSLMINPROTOCOLVERSION")),
    ("target_session_attrs", taken("PGTARGETSESSIONATTRS")),
    ("load_balance_hosts", taken("PGLOADBALANCEHOSTS")),
    (
        "client_encoding",
        Treatment::Only { values: &["UTF8", "utf8", "UTF-8", "utf-8"], why: "text is UTF-8 here" },
    ),
    (
        "gssencmode",
        Treatment::Only {
            values: &["disable", "prefer"],
            why: "GSS encryption is not supported; use TLS",
        },
    ),
    (
        "sslcompression",
        Treatment::Only {
            values: &["0"],
            why: "compression under TLS is unsafe and not supported",
        },
    ),
    ("sslsni", Treatment::Only { values: &["1"], why: "the host's name is always sent" }),
    ("requiressl", refused("libpq itself dropped it; write sslmode=require")),
    (
        "require_auth",
        refused(
            "not supported; channel_binding=require forces SCRAM, sslmode=verify-full the right server",
        ),
    ),
    (
        "sslpassword",
        refused(
            "encrypted keys are not supported; keep an unencrypted key readable by its user alone",
        ),
    ),
    ("sslkeylogfile", refused("keys of the session are not written anywhere")),
    ("sslcertmode", refused("not supported; name sslcert and sslkey, or neither")),
    (
        "ssl_max_protocol_version",
        refused("not supported; the newest version that both sides know is used"),
    ),
    (
        "min_protocol_version",
        refused("not supported; protocol 3.0 is spoken, which every server knows"),
    ),
    (
        "max_protocol_version",
        refused("not supported; protocol 3.0 is spoken, which every server knows"),
    ),
    ("sslcrl", CRL),
    ("sslcrldir", CRL),
    ("requirepeer", refused("not supported; protect the socket's directory by its rights")),
    (
        "replication",
        refused("this is a connection for ordinary SQL; the relay opens its own for replication"),
    ),
    ("service", refused("service files are not read; write the parameters out")),
    ("servicefile", refused("service files are not read; write the parameters out")),
    ("scram_client_key", refused("not supported; use the password")),
    ("scram_server_key", refused("not supported; use the password")),
    ("krbsrvname", KERBEROS),
    ("gsslib", KERBEROS),
    ("gssdelegation", KERBEROS),
    ("oauth_issuer", OAUTH),
    ("oauth_client_id", OAUTH),
    ("oauth_client_secret", OAUTH),
    ("oauth_scope", OAUTH),
];

/// Variables of parameters that are not simply taken. One that is set counts as if it were written:
/// who has set `PGSSLCRL` or `PGSERVICE` relies on it. Variables without an effect here, such as
/// `PGSERVICEFILE` without a service or `PGTZ`, are left alone.
pub(super) const JUDGED_VARIABLES: &[(&str, &str)] = &[
    ("PGGSSENCMODE", "gssencmode"),
    ("PGMAXPROTOCOLVERSION", "max_protocol_version"),
    ("PGMINPROTOCOLVERSION", "min_protocol_version"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGREQUIRESSL", "requiressl"),
    ("PGSERVICE", "service"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLCOMPRESSION", "sslcompression"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGSSLSNI", "sslsni"),
];

/// The variable that psql would take a parameter from.
pub(super) fn variable_of(name: &str) -> Option<&'static str> {
    PARAMETERS.iter().find(|(known, _)| *known == name).and_then(
        |&(_, treatment)| match treatment {
            Treatment::Taken { variable } => variable,
            Treatment::Only { .. } | Treatment::Refused { .. } => None,
        },
    )
}

/// The parameter that `name` was probably meant to be.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    // A third of the letters wrong is no longer a typo.
    let near = name.len().div_ceil(3);
    let distance = |known: &str| strsim::damerau_levenshtein(&name.to_lowercase(), known);
    let usable = PARAMETERS.iter().filter(|(_, t)| !matches!(t, Treatment::Refused { .. }));
    usable
        .map(|&(known, _)| known)
        .min_by_key(|known| distance(known))
        .filter(|k| distance(k) <= near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_parameter() {
        assert_eq!(nearest("sslmod"), Some("sslmode"));
        assert_eq!(nearest("sslrootca"), Some("sslrootcert"));
        assert_eq!(nearest("HOST"), Some("host"));
        assert_eq!(nearest("aplication_name"), Some("application_name"));
        assert_eq!(nearest("colour"), None);
    }

    #[test]
    fn no_parameter_is_listed_twice() {
        for (index, (name, _)) in PARAMETERS.iter().enumerate() {
            assert!(PARAMETERS[..index].iter().all(|(other, _)| other != name), "{name}");
        }
        for (variable, parameter) in JUDGED_VARIABLES {
            let known = PARAMETERS.iter().find(|(name, _)| name == parameter);
            let taken = known.is_none_or(|(_, t)| matches!(t, Treatment::Taken { .. }));
            assert!(!taken, "{variable} is of no parameter that is judged");
        }
    }
}
