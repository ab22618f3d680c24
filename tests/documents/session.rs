//! One document's blocks, run in order in one shell, in a folder of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use crate::document::{Block, Document, ROOT};
use crate::place;
use crate::support::{Client, PATIENCE, wait_until};
use crate::transcript::{Names, Typed, typed};

/// Runs the blocks of one document.
#[derive(Debug)]
pub struct Session {
    folder: PathBuf,
    ports: BTreeMap<u16, u16>,
    names: Names,
    shell: Option<Shell>,
    has_server: bool,
    /// What terminals must have printed in the end, and the files with what they printed.
    terminals: Vec<(String, Typed, PathBuf)>,
    files: usize,
}

/// A shell that waits for commands, and what it and they print.
#[derive(Debug)]
struct Shell {
    process: Child,
    lines: Receiver<String>,
}

/// Programs that scripts and transcripts find in place of the installed ones.
const PROGRAMS: &[(&str, &str)] = &[
    (
        "fantail",
        r#"case "$1" in
    publish | subscribe | top)
        case "$*" in
            *--server*) ;;
            *"--transport tcp"*) set -- "$@" --server "tcp://127.0.0.1:$DOCUMENT_TCP" ;;
            *) set -- "$@" --server "http://127.0.0.1:$DOCUMENT_HTTP" ;;
        esac ;;
esac
[ -z "$DOCUMENT_PARSE" ] || set -- "$@" --help
exec "$DOCUMENT_FANTAIL" "$@""#,
    ),
    (
        "c1m",
        r#"mode=$1
case "$*" in *--target*) ;; *) set -- "$@" --target "127.0.0.1:$DOCUMENT_HTTP" ;; esac
case "$mode $*" in echo* | *--tcp-target*) ;; *) set -- "$@" --tcp-target "127.0.0.1:$DOCUMENT_TCP" ;; esac
if [ -n "$DOCUMENT_PARSE" ]; then set -- "$@" --help; else
    until (exec 3<>"/dev/tcp/127.0.0.1/$DOCUMENT_HTTP") 2>/dev/null; do sleep 0.01; done
fi
exec "$DOCUMENT_C1M" "$@""#,
    ),
    ("bench", r#"exec "$DOCUMENT_BENCH" "$@" ${DOCUMENT_PARSE:+--help}"#),
    // A core that this host may not have.
    ("taskset", r#"shift 2; exec "$@""#),
    // What cargo would build is built; what it would run must exist.
    (
        "cargo",
        r#"[ "$1" = build ] && exit
while [ $# -gt 0 ]; do
    case "$1" in
        --bench) [ -e "benches/$2.rs" ] || exit 101 ;;
        --test) [ -e "tests/$2.rs" ] || [ -e "tests/$2/main.rs" ] || exit 101 ;;
        --bin) bin=$2 ;;
        fuzz)
            for word; do [ ! -e "tools/fuzz/fuzz_targets/$word.rs" ] || exit 0; done
            exit 101 ;;
        --) [ "$bin" = bench ] && { shift; exec bench "$@"; } ;;
    esac
    shift
done"#,
    ),
];

impl Session {
    pub fn new(document: &Document) -> Self {
        let name = document.path.replace('/', "-");
        let folder = std::env::temp_dir().join(format!("fantail-{}-{name}", std::process::id()));
        fs::create_dir_all(folder.join("bin")).unwrap();
        for (name, text) in PROGRAMS {
            let path = folder.join("bin").join(name);
            fs::write(&path, format!("#!/usr/bin/env bash\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        // It shows progress where its output is not a terminal.
        fs::write(folder.join(".curlrc"), "silent\nshow-error\n").unwrap();
        fs::create_dir(folder.join("target")).unwrap();
        symlink(folder.join("bin"), folder.join("target/release")).unwrap();
        for name in ["benches", "src", "sysctl", "tests", "tools"] {
            symlink(Path::new(ROOT).join(name), folder.join(name)).unwrap();
        }
        let mut session = Self {
            folder,
            ports: BTreeMap::new(),
            names: Names::default(),
            shell: None,
            has_server: false,
            terminals: Vec::new(),
            files: 0,
        };
        session.take_ports();
        session
    }

    /// Runs a block, and fails if it does not do what it says.
    #[track_caller]
    pub fn run(&mut self, block: &Block) {
        let place = place(block);
        if block.is("conformance") {
            let cases = Path::new(ROOT).join("tools/conformance/documents.py");
            let cases = fs::read_to_string(cases).unwrap();
            let runner = format!("\"{}\": ", block.language);
            assert!(cases.contains(&runner), "{place}: documents.py has no {runner}");
            return;
        }
        if let Some(file) = block.value("in").filter(|_| block.language != "rust") {
            is_a_configuration(block, file);
            return;
        }
        match &*block.language {
            "console" => self.run_transcript(block),
            "sh" => self.run_script(block),
            "toml" => self.check_settings(block),
            "js" => self.run_program(block, "node", "mjs", ""),
            "python" => self.run_program(block, "python3", "py", ""),
            "php" => self.run_program(block, "php", "php", "<?php\n"),
            "rust" => is_in_a_test(block),
            language => panic!("{place}: no test runs {language:?}"),
        }
    }

    /// Waits for what terminals print, and ends everything.
    #[track_caller]
    pub fn finish(mut self) {
        for (place, expected, file) in std::mem::take(&mut self.terminals) {
            let printed = || fs::read_to_string(&file).unwrap_or_default();
            let until = Instant::now() + PATIENCE;
            let mut names = self.names.clone();
            while !names.fits(&expected.printed, &self.restored(&printed())) {
                let (typed, wanted) = (&expected.command, &expected.printed);
                assert!(
                    Instant::now() < until,
                    "{place}: {typed} printed\n{}\nand should print\n{}",
                    printed(),
                    wanted.join("\n")
                );
                std::thread::sleep(std::time::Duration::from_millis(5));
                names = self.names.clone();
            }
        }
    }

    fn run_transcript(&mut self, block: &Block) {
        let place = place(block);
        let script = block.scaled();
        for command in typed(&script) {
            let text = self.replaced(&self.names.replaced(&command.command));
            let starts_server = is_server(&command.command);
            if starts_server {
                assert!(!self.has_server, "{place}: a second server");
                self.has_server = true;
            } else {
                self.start_server();
            }
            if !has_programs(&command.command) {
                eprintln!("{place}: passed over, a program is missing: {}", command.command);
                continue;
            }
            if block.is("terminal") {
                self.open_terminal(&place, command, &text, starts_server);
                continue;
            }
            let (printed, code) = self.type_in(&text);
            let printed = self.restored(&printed);
            assert!(
                self.names.fits(&command.printed, &printed),
                "{place}: {text} printed\n{printed}\nand should print\n{}",
                command.printed.join("\n")
            );
            assert_eq!(code, 0, "{place}: {text} printed\n{printed}");
        }
    }

    /// Starts a command that stays; it is ready once it has printed something or subscribed to something.
    fn open_terminal(&mut self, place: &str, command: Typed, text: &str, starts_server: bool) {
        let file = self.folder.join(format!("terminal-{}", self.terminals.len()));
        let subscriptions = if starts_server { 0 } else { self.subscriptions() };
        let (printed, _) = self.type_in(&format!("( {text}\n) >{} 2>&1 &", file.display()));
        assert_eq!(printed, "", "{place}");
        if starts_server {
            self.wait_for_server(&file);
        } else {
            wait_until(text, || {
                fs::metadata(&file).is_ok_and(|file| file.len() > 0)
                    || self.subscriptions() > subscriptions
            });
        }
        self.terminals.push((place.to_owned(), command, file));
    }

    /// Runs a script in a process group of its own, which ends with it, with addresses of its own if it serves.
    fn run_script(&mut self, block: &Block) {
        let place = place(block);
        let script = block.scaled();
        let parses = block.is("parse");
        let serves = script.lines().any(is_server);
        if serves {
            self.take_ports();
        } else if !parses {
            self.start_server();
        }
        if !has_programs(&script) {
            eprintln!("{place}: passed over, a program is missing");
            return;
        }
        let mut command = self.bash();
        if parses {
            command.env("DOCUMENT_PARSE", "1");
        }
        let file = self.folder.join("script");
        fs::write(&file, self.replaced(&script)).unwrap();
        let output = self.folder.join("output");
        let printed = fs::File::create(&output).unwrap();
        command.args(["-e", "-u"]).arg(&file).stdin(Stdio::null());
        command.stdout(printed.try_clone().unwrap()).stderr(printed);
        let mut shell = command.spawn().unwrap();
        let status = wait(&mut shell);
        end_group(&shell);
        assert!(status, "{place}:\n{script}printed\n{}", fs::read_to_string(output).unwrap());
        if serves {
            self.take_ports();
        }
    }

    fn check_settings(&mut self, block: &Block) {
        let name = block.words.iter().find(|word| word.ends_with(".toml"));
        let path = self.folder.join(name.map_or("settings.toml", |name| name));
        // A certificate that the operator would have.
        let folder = format!("{}/", self.folder.display());
        fs::write(&path, block.text.replace("/etc/fantail/", &folder)).unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(self.folder.join("fullchain.pem"), made.cert.pem()).unwrap();
        fs::write(self.folder.join("privkey.pem"), made.signing_key.serialize_pem()).unwrap();
        // What a service manager would give to the server.
        let secret = self.folder.join("api-key");
        fs::write(&secret, "change-me\n").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let ended = Command::new(env!("CARGO_BIN_EXE_fantail"))
            .env("CREDENTIALS_DIRECTORY", &self.folder)
            .args(["check", "--config"])
            .arg(path)
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success(), "{}: {ended:?}", place(block));
        assert!(!printed.contains("warning: "), "{}: {printed}", place(block));
    }

    /// Runs a program; with `publishes`, it must have published that to the channel of the recipes.
    fn run_program(&mut self, block: &Block, interpreter: &str, ending: &str, head: &str) {
        let place = place(block);
        if !is_installed(interpreter) {
            eprintln!("{place}: passed over, {interpreter} is not installed");
            return;
        }
        self.start_server();
        self.files += 1;
        let file = self.folder.join(format!("program-{}.{ending}", self.files));
        fs::write(&file, format!("{head}{}", self.replaced(&block.text))).unwrap();
        let position = |since: &str| {
            let mut client = Client::connect(self.http());
            client.get(&format!("/poll?channel=news&timeout=0{since}")).json()
        };
        let before = position("&since=0")["position"].as_str().unwrap().to_owned();
        let mut command = self.bash();
        let run = command.args(["-c", &format!("{interpreter} {}", file.display())]).output();
        let run = run.unwrap();
        assert!(run.status.success(), "{place}: {run:?}");
        if let Some(data) = block.value("publishes") {
            let after = position(&format!("&since={before}"));
            let data: serde_json::Value = serde_json::from_str(data).unwrap();
            assert_eq!(after["publications"][0]["data"], data, "{place}: {after}");
        }
    }

    /// Has the shell run a command; what it printed, and its exit code.
    fn type_in(&mut self, command: &str) -> (String, i32) {
        const END: &str = "--- the end of a command: ";
        if self.shell.is_none() {
            self.shell = Some(Shell::start(self.bash()));
        }
        let shell = self.shell.as_mut().unwrap();
        let line = format!("{{ {command}\n}} </dev/null; printf '\\n%s%d\\n' '{END}' $?\n");
        shell.process.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        let mut printed = String::new();
        loop {
            let Ok(line) = shell.lines.recv_timeout(PATIENCE) else {
                panic!("{command} does not end; it printed {printed}");
            };
            if let Some(code) = line.strip_prefix(END) {
                return (printed.trim_end_matches('\n').to_owned(), code.parse().unwrap());
            }
            printed += &line;
            printed.push('\n');
        }
    }

    /// A shell with the document's programs and addresses, in a process group of its own.
    fn bash(&self) -> Command {
        let mut command = Command::new("bash");
        let path = std::env::var("PATH").unwrap();
        let [http, tcp] = [self.ports[&8000], self.ports[&8001]];
        command
            .current_dir(&self.folder)
            .process_group(0)
            .env("PATH", format!("{}:{path}", self.folder.join("bin").display()))
            .env("CURL_HOME", &self.folder)
            .env("FANTAIL_LISTEN", format!("127.0.0.1:{http}"))
            .env("FANTAIL_TCP_LISTEN", format!("127.0.0.1:{tcp}"))
            .env("DOCUMENT_FANTAIL", env!("CARGO_BIN_EXE_fantail"))
            .env("DOCUMENT_C1M", env!("CARGO_BIN_EXE_c1m"))
            .env("DOCUMENT_BENCH", env!("CARGO_BIN_EXE_bench"))
            .env("DOCUMENT_HTTP", http.to_string())
            .env("DOCUMENT_TCP", tcp.to_string());
        command
    }

    /// Starts a server with the defaults, unless one runs.
    fn start_server(&mut self) {
        if !self.has_server {
            self.has_server = true;
            let file = self.folder.join("server");
            self.type_in(&format!("fantail --workers 2 >{} 2>&1 &", file.display()));
            self.wait_for_server(&file);
        }
    }

    fn wait_for_server(&self, log: &Path) {
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(self.http()).is_err() {
            let log = || fs::read_to_string(log).unwrap_or_default();
            assert!(Instant::now() < until, "the server does not serve: {}", log());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn http(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[&8000]))
    }

    /// Subscriptions of all workers.
    fn subscriptions(&self) -> u64 {
        let metrics = Client::connect(self.http()).get("/metrics");
        let samples = metrics.text().lines();
        let samples = samples.filter(|line| line.starts_with("fantail_subscriptions{"));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Free ports in place of those that documents name.
    fn take_ports(&mut self) {
        let sockets: Vec<_> =
            PORTS.iter().map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
        let ports = sockets.iter().map(|socket| socket.local_addr().unwrap().port());
        self.ports = PORTS.iter().copied().zip(ports).collect();
    }

    /// A text with the ports of this session.
    fn replaced(&self, text: &str) -> String {
        self.ports.iter().fold(text.to_owned(), |text, (named, own)| {
            HOSTS.iter().fold(text, |text, host| {
                text.replace(&format!("{host}{named}"), &format!("{host}{own}"))
            })
        })
    }

    /// What was printed, with the ports of the document.
    fn restored(&self, text: &str) -> String {
        self.ports.iter().fold(text.to_owned(), |text, (named, own)| {
            text.replace(&format!(":{own}"), &format!(":{named}"))
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            end_group(&shell.process);
            // It may have ended by itself.
            let _ = shell.process.kill();
            let _ = shell.process.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Shell {
    fn start(mut command: Command) -> Self {
        let (reader, writer): (PipeReader, _) = std::io::pipe().unwrap();
        let process = command
            .arg("--norc")
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .expect("bash is installed");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // Ends with the shell, or with the test.
            let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
            lines.all(|line| sender.send(line).is_ok())
        });
        Self { process, lines }
    }
}

/// Whether a command starts a server.
fn is_server(command: &str) -> bool {
    let mut words = command.split_whitespace().skip_while(|word| !word.ends_with("fantail"));
    let is_bare = |next: Option<&str>| {
        next.is_none_or(|word| word.starts_with("--") || ["&", "#"].contains(&word))
    };
    words.next().is_some() && is_bare(words.next()) && !command.contains("cargo")
}

/// Whether what a command or script begins its lines with is installed.
fn has_programs(script: &str) -> bool {
    OTHERS.iter().all(|name| {
        !script.split(|letter: char| !letter.is_alphanumeric()).any(|word| word == *name)
            || is_installed(name)
    })
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

/// Asserts that the block stands in the test that it names, whatever the indentation.
fn is_in_a_test(block: &Block) {
    let place = place(block);
    let file = block.value("in").unwrap_or_else(|| panic!("{place}: in which test?"));
    let lines = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let test = lines(&fs::read_to_string(Path::new(ROOT).join(file)).unwrap());
    assert!(test.contains(&lines(&block.text)), "{place}: it does not stand in {file}");
}

/// Checks that a block is a file with which the conformance tests run a proxy.
#[track_caller]
fn is_a_configuration(block: &Block, file: &str) {
    let place = place(block);
    let name = file.strip_prefix("tools/conformance/proxies/").expect(&place);
    let text = fs::read_to_string(Path::new(ROOT).join(file)).expect(&place);
    assert!(block.text == text, "{place}: {file} is another");
    let cases = Path::new(ROOT).join("tools/conformance/recipes.py");
    let cases = fs::read_to_string(cases).unwrap();
    assert!(
        cases.contains(&format!("    \"{name}\": (")),
        "{place}: recipes.py does not run {name}"
    );
}

/// Whether a process ends with 0; it is killed where it takes too long.
fn wait(process: &mut Child) -> bool {
    let until = Instant::now() + 3 * PATIENCE;
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status.success();
        }
        if Instant::now() > until {
            let _ = process.kill();
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Ends what a shell left running.
#[expect(unsafe_code, reason = "signals have no safe wrapper")]
fn end_group(shell: &Child) {
    let group = libc::pid_t::try_from(shell.id()).expect("process ids are small");
    // SAFETY: kill takes no pointers. The group is that of a shell which this session started.
    unsafe { libc::kill(-group, libc::SIGTERM) };
}

/// What precedes a port in documents.
const HOSTS: &[&str] = &["127.0.0.1:", "127.0.0.1 ", "localhost:"];

/// The ports that documents name.
const PORTS: &[u16] = &[8000, 8001, 8002, 9001, 9002];

/// Programs that are not part of this repository, and without which a command is passed over.
const OTHERS: &[&str] = &["curl", "nc", "node", "python3"];
