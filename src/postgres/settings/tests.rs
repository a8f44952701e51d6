//! What is accepted, what it means, and what is refused in which words.

use super::*;

fn parse(text: &str) -> Settings {
    Settings::parse(text, &Environment::empty()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    match Settings::parse(text, &Environment::empty()) {
        Ok(settings) => panic!("{text} was accepted: {settings:?}"),
        Err(error) => error.to_string(),
    }
}

fn tcp(name: &str, port: u16) -> Server {
    Server { place: Place::Tcp { name: name.into(), address: None }, port }
}

#[test]
fn the_least_text_has_libpqs_defaults() {
    let settings = parse("host=db user=app");
    assert_eq!(settings.servers, [tcp("db", 5432)]);
    assert_eq!((settings.user.as_str(), settings.dbname.as_str()), ("app", "app"));
    assert_eq!(settings.tls.mode, SslMode::Prefer);
    assert_eq!(settings.channel_binding, ChannelBinding::Prefer);
    assert_eq!(settings.target, Target::Any);
    assert_eq!(settings.connect_timeout, Duration::from_secs(10));
    assert_eq!(settings.keepalives, Keepalives::default());
    assert_eq!((settings.password, settings.passfile), (None, Passfile::DefaultFile(None)));
}

#[test]
fn both_spellings_mean_the_same() {
    let url = parse(
        "postgresql://app:p%40ss@a:1,b:2/shop?sslmode=verify-full&sslrootcert=/r.pem&connect_timeout=3\
         &target_session_attrs=read-write&application_name=x&options=-c%20lock_timeout%3D1s",
    );
    let keywords = parse(
        "user=app password=p@ss host=a,b port=1,2 dbname=shop sslmode=verify-full sslrootcert=/r.pem \
         connect_timeout=3 target_session_attrs=read-write application_name=x \
         options='-c lock_timeout=1s'",
    );
    assert_eq!(url, keywords);
    assert_eq!(url.servers, [tcp("a", 1), tcp("b", 2)]);
    assert_eq!(url.password.unwrap().expose(), "p@ss");
}

#[test]
fn servers_can_be_sockets_and_addresses() {
    let settings = parse("host=/run/pg,db,:: hostaddr=,10.0.0.1, port=5433 user=u");
    let shown: Vec<_> = settings.servers.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["/run/pg/.s.PGSQL.5433", "db:5433", "[::]:5433"]);
    let address = Some("10.0.0.1".parse().unwrap());
    assert_eq!(settings.servers[1].place, Place::Tcp { name: "db".into(), address });
    let only = parse("hostaddr=127.0.0.1 user=u");
    assert_eq!(only.servers[0].to_string(), "127.0.0.1:5432");
}

#[test]
fn the_environment_fills_in_and_the_text_wins() {
    let environment = Environment::from_variables(
        [
            ("PGHOST", "elsewhere"),
            ("PGPASSWORD", "pw"),
            ("PGSSLMODE", "require"),
            ("PGUSER", ""),
            ("USER", "me"),
            ("HOME", "/home/me"),
            ("PGTZ", "ignored by name"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let settings = Settings::parse("host=here", &environment).unwrap();
    assert_eq!(settings.servers, [tcp("here", 5432)]);
    assert_eq!((settings.user.as_str(), settings.tls.mode), ("me", SslMode::Require));
    assert_eq!(settings.password.unwrap().expose(), "pw");
    assert_eq!(settings.passfile, Passfile::DefaultFile(Some("/home/me/.pgpass".into())));
    assert_eq!(
        settings.tls.roots,
        Roots::DefaultFile(Some("/home/me/.postgresql/root.crt".into()))
    );
}

#[test]
fn a_variable_that_cannot_be_honoured_is_refused_by_its_name() {
    let parse = |variables: &[(&str, &str)]| {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let environment = Environment::from_variables(variables.iter().map(owned));
        assert!(!format!("{environment:?}").contains("hunter2"));
        let settings = Settings::parse("host=a user=u gssencmode=disable", &environment);
        settings.map(drop).map_err(|error| error.to_string()).err().unwrap_or_default()
    };
    assert_eq!(parse(&[("PGGSSENCMODE", "require"), ("PGSSLSNI", "1"), ("PGSSLCRL", "")]), "");
    let said = parse(&[
        ("PGSSLCRL", "/crl"),
        ("PGREQUIREAUTH", "scram-sha-256"),
        ("PGSERVICE", "prod"),
        ("PGSSLMODE", "full"),
        ("PGPASSWORD", "hunter2"),
    ]);
    for words in
        ["PGSSLCRL: revocation", "PGREQUIREAUTH: not", "PGSERVICE: ", "PGSSLMODE: \"full\""]
    {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn roots_of_the_system_mean_verify_full() {
    assert_eq!(parse("host=a user=u sslrootcert=system").tls.mode, SslMode::VerifyFull);
    let error = refused("host=a user=u sslrootcert=system sslmode=verify-ca");
    assert!(error.contains("sslmode: sslrootcert=system"), "{error}");
}

#[test]
fn values_that_change_nothing_are_taken() {
    parse("host=a user=u gssencmode=prefer client_encoding=UTF8 sslcompression=0 sslsni=1");
}

#[test]
fn each_refusal_names_its_parameter_and_the_way_out() {
    for (text, words) in [
        ("user=u", "host: missing; name the server"),
        ("host=a", "user: missing"),
        ("host=a user=u sslmod=require", "sslmod: unknown parameter; did you mean sslmode?"),
        ("host=a user=u colour=red", "colour: unknown parameter; libpq's names"),
        (
            "host=a user=u sslmode=allow",
            "sslmode: allow tries without encryption first; use prefer",
        ),
        ("host=a user=u sslmode=full", "sslmode: \"full\" is none of disable, prefer, require"),
        ("host=a user=u sslcrl=/x", "sslcrl: revocation lists are not supported; use short"),
        ("host=a user=u gssencmode=require", "gssencmode: only disable works: GSS"),
        ("host=a user=u client_encoding=LATIN1", "client_encoding: only UTF8 works"),
        (
            "host=a user=u replication=database",
            "replication: this is a connection for ordinary SQL",
        ),
        ("host=a user=u service=x", "service: service files are not read"),
        (
            "host=a user=u connect_timeout=0",
            "connect_timeout: \"0\" is not a number of seconds from 1",
        ),
        ("host=a user=u port=70000", "port: not a number from 1"),
        ("host=a,b user=u port=1,2,3", "port: 3 for 2 hosts"),
        ("host=a,b hostaddr=::1 user=u", "hostaddr: 1 for 2 hosts"),
        ("host=a, user=u", "host: one of the list is empty"),
        ("hostaddr=db user=u", "hostaddr: not an IP address"),
        ("host=a user=u sslcert=/c", "sslkey: missing"),
        ("host=a user=u sslkey=/c", "sslcert: missing"),
        ("host=a user=u sslnegotiation=direct", "sslnegotiation: direct needs TLS"),
        ("host=a user=u channel_binding=yes", "channel_binding: \"yes\" is none of"),
    ] {
        let error = refused(text);
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn every_problem_is_reported_at_once() {
    let error = refused("user=u sslmod=x sslmode=full port=x sslcrl=y");
    for words in ["sslmod: ", "sslmode: ", "host: missing", "sslcrl: "] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn what_cannot_be_a_piece_of_a_password_is_named_still() {
    let error = refused("host=a user=u password=my hunter2=3 port=0 colour=red sslcrl=/x");
    for words in ["parameter number 4: unknown", "port: not a number", "number 6", "sslcrl: "] {
        assert!(error.contains(words), "{error}");
    }
    assert!(refused("host=a;port=1 user=u").contains("host: one of the list is neither a name"));
}

#[test]
fn no_secret_is_printed() {
    for text in [
        "host=a user=u password=hunter2",
        "postgresql://u:hunter2@a/d",
        "postgresql://u:x/hunter2@a/d",
        "postgresql://u:x@hunter2@a/d",
        "postgresql://u:hunter2@a/d?port=0&sslmode=nope",
        "host=a user=u password=hunter2 nonsense",
        "host=a user=u password='hunter2",
        // What an operator forgot to quote or to escape, or took from elsewhere.
        "host=a user=u password=my hunter2=3",
        "host=a user=u password=my hunter2 = 3",
        "postgresql://u@a/d?password=x&hunter2=3",
        "postgre://u:hunter2@a/d?sslmode=require",
        "jdbc:postgresql://u:hunter2@a/d?ssl=true",
        "host=a;user=u;password=hunter2",
        "Host=a;Username=u;Password=hunter2",
        "user=u,host=a,password=hunter2",
    ] {
        let shown = match Settings::parse(text, &Environment::empty()) {
            Ok(settings) => format!("{settings:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains("hunter2"), "{text}: {shown}");
    }
}
