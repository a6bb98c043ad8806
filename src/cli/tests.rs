use super::*;

fn goms(args: &[&str]) -> Result<Cli, clap::Error> {
    parse(std::iter::once("goms").chain(args.iter().copied()).map(OsString::from))
}

fn words(args: &[&str]) -> Vec<String> {
    let args = std::iter::once("goms").chain(args.iter().copied()).map(OsString::from);
    normalise(&Cli::command(), args).into_iter().skip(1).map(|arg| arg.into_string().expect("utf-8")).collect()
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
    ServiceArgs::command().debug_assert();
}

#[test]
fn spellings_of_the_originals_are_rewritten() {
    let cases: [(&[&str], &[&str]); 12] = [
        (&["gateway", "-http_port", "8080"], &["gateway", "--http-port", "8080"]),
        (&["gateway", "-http_port=8080"], &["gateway", "--http-port=8080"]),
        (&["gateway", "--http_port", "8080"], &["gateway", "--http-port", "8080"]),
        (&["gateway", "-http-port", "8080"], &["gateway", "--http-port", "8080"]),
        (&["-etcd_addr=a|b"], &["--etcd-addr=a|b"]),
        (&["-version"], &["--version"]),
        (&["-help"], &["--help"]),
        (&["-config", "my_config.yml"], &["--config", "my_config.yml"]),
        (&["-v", "-vv", "-V", "-h", "-q", "-vq", "-"], &["-v", "-vv", "-V", "-h", "-q", "-vq", "-"]),
        (&["service", "a", "--", "-http_port", "--http_port"], &["service", "a", "--", "-http_port", "--http_port"]),
        (&["-10", "--not_known", "some_value"], &["-10", "--not_known", "some_value"]),
        (&["-http_prt=1"], &["--http-prt=1"]),
    ];
    for (given, wanted) in cases {
        assert_eq!(words(given), wanted);
    }
}

#[test]
fn versions_and_help_are_no_errors() {
    for args in [&["--version"][..], &["-V"], &["-version"], &["gateway", "-version"], &["trace", "search", "-V"]] {
        let said = goms(args).expect_err("prints");
        assert_eq!((said.to_string().as_str(), exit_code(&said)), ("goms 0.1.0\n", EXIT_OK));
    }
    for args in [&["--help"][..], &["gateway", "-h"], &["trace", "search", "--help"]] {
        let said = goms(args).expect_err("prints");
        assert_eq!(exit_code(&said), EXIT_OK);
        assert!(said.to_string().contains("Examples:"), "{said}");
    }
}

#[test]
fn what_is_misspelt_gets_a_suggestion_and_64() {
    let cases: [(&[&str], &str); 8] = [
        (&["gatway"], "'gateway'"),
        (&["gateway", "-http_prt", "1"], "'--http-port'"),
        (&["gateway", "--htp-port", "1"], "'--http-port'"),
        (&["up", "--registry", "etdc"], "did you mean `etcd`?"),
        (&["up", "--selector", "randm"], "did you mean `random`?"),
        (&["trace", "search", "--event", "request.strt"], "'request.start'"),
        (&["service", "my_user"], "must not contain `_`"),
        (&["up", "--register-ttl", "0"], "must be greater than 0"),
    ];
    for (args, part) in cases {
        let said = goms(args).expect_err("refused");
        assert_eq!(exit_code(&said), EXIT_USAGE, "{said}");
        assert!(said.to_string().contains(part), "{said}");
    }
    assert_eq!(exit_code(&goms(&[]).expect_err("no command")), EXIT_USAGE);
}

#[test]
fn a_service_takes_a_program() {
    let cli = goms(&[
        "service",
        "shop",
        "--app",
        "http://127.0.0.1:5000",
        "-http_port",
        "0",
        "--",
        "python3",
        "-x",
        "--http_port",
    ]);
    let Command::Service(service) = cli.expect("parsed").command else { panic!("another command") };
    assert_eq!((service.name.as_str(), service.node.http_port, service.restart), ("shop", Some(0), Restart::OnFailure));
    assert_eq!(service.program, ["python3", "-x", "--http_port"]);
    assert!(goms(&["service", "shop", "--", "python3"]).is_err());
    assert!(goms(&["service", "shop", "--app", "ftp://x"]).is_err());
}

#[test]
fn flags_stand_before_or_after_the_command() {
    for args in [&["--namespace", "go-ms", "cluster", "nodes"][..], &["cluster", "nodes", "--namespace=go-ms"]] {
        assert_eq!(goms(args).expect("parsed").common.namespace.as_deref(), Some("go-ms"));
    }
    let cli =
        goms(&["gateway", "--access-log", "--etcd-addr", "a:1|b:2", "-vv", "--drain-timeout", "5"]).expect("parsed");
    assert_eq!(cli.node().access_log, Some(true));
    assert_eq!(cli.node().drain_timeout, Some(std::time::Duration::from_secs(5)));
    assert_eq!(cli.common.verbose, 2);
    assert_eq!(cli.common.registry_address.as_deref(), Some(&["a:1".to_owned(), "b:2".to_owned()][..]));
    let cli = goms(&["gateway", "--access-log=false"]).expect("parsed");
    assert_eq!(cli.node().access_log, Some(false));
}

#[test]
fn a_search_becomes_a_query() {
    let args = ["trace", "search", "--status", "5xx", "--min-duration", "1ms", "--order", "slowest", "--limit", "7"];
    let Command::Trace { command: TraceCommand::Search(search) } = goms(&args).expect("parsed").command else {
        panic!("another command")
    };
    let query = search.query();
    assert_eq!((query.status, query.min_duration_ns, query.limit), (Some((500, 599)), Some(1_000_000), 7));
    assert_eq!(query.order, crate::store::Order::Slowest);
}

#[test]
fn a_service_authors_binary_takes_the_node_flags() {
    let parse = |args: &[&str]| ServiceArgs::parse_args("shop", "3.1", args.iter().map(OsString::from));
    let args = parse(&["x", "-http_port", "8081", "--registry=memory"]).expect("parsed");
    assert_eq!(args.node.http_port, Some(8081));
    assert_eq!(parse(&["x", "-version"]).expect_err("prints").to_string(), "shop 3.1\n");
}

#[test]
fn every_flag_has_a_variable() {
    fn walk(command: &clap::Command) {
        for arg in command.get_arguments().filter(|arg| arg.get_long().is_some()) {
            let long = arg.get_long().expect("filtered");
            if !matches!(long, "help" | "version") {
                let variable = arg.get_env().and_then(|name| name.to_str()).unwrap_or_default();
                assert!(variable.starts_with("GOMS_"), "--{long} of {} has no variable", command.get_name());
            }
        }
        command.get_subcommands().for_each(walk);
    }
    walk(&Cli::command());
}

#[test]
fn the_manual_has_a_page_for_each_command_and_tells_of_each_flag() {
    let dir = tempfile::tempdir().expect("a folder");
    write_manual(dir.path()).expect("written");
    let pages: Vec<_> =
        std::fs::read_dir(dir.path()).expect("a folder").map(|page| page.expect("a page").path()).collect();
    for name in ["goms.1", "goms-gateway.1", "goms-trace-search.1", "goms-doctor.1"] {
        assert!(pages.contains(&dir.path().join(name)), "{name} of {pages:?}");
    }
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("text");
        // a flag's line, and then what it is for
        let bare = text.split(".TP\n").skip(1).find(|flag| flag.lines().nth(1).is_none_or(str::is_empty));
        assert_eq!(bare, None, "{}", page.display());
    }
    let whole = String::from_utf8(manual().expect("a page")).expect("text");
    assert!(whole.contains("Where nodes find each other") && whole.contains("goms trace search"), "{whole}");
}
