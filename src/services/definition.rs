//! The files that define a unit of systemd, read as systemd reads them (`systemd.syntax(7)`), without asking it: files of
//! a release that is not current yet are judged before it is.
//!
//! A refusal is what systemd refuses to load, or to start (`service_verify()` and `unit_load()` of its sources). A mistake
//! is what it ignores with a line in the journal. What this module does not know is neither.

/// Sections that a file of a service can have.
const SECTIONS: [&str; 3] = ["Unit", "Service", "Install"];
/// Prefixes of a program that change how it is run (`systemd.service(5)`), except the one for failures.
const PREFIXES: [char; 5] = ['@', ':', '+', '!', '|'];
/// Commands whose failure keeps a service from running.
const COMMANDS: [&str; 4] = ["ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost"];

/// One line `Key=Value` of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    section: String,
    key: String,
    value: String,
}

/// What the files of a unit say together: its own file first, then those that add to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Definition {
    settings: Vec<Setting>,
    refusals: Vec<String>,
    mistakes: Vec<String>,
}

/// A program that a service runs before it is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The key that names it, as in `ExecStart`.
    pub key: &'static str,
    /// An absolute path, or a name that systemd looks for in its own directories.
    pub program: String,
}

impl Definition {
    /// Takes in one more file.
    pub fn add(&mut self, name: &str, text: &str) {
        let mut section: Option<String> = None;
        for line in joined(text) {
            if let Some(header) = line.strip_prefix('[') {
                let Some(header) = header.strip_suffix(']') else {
                    self.refusals.push(format!("{name}: the section {line:?} does not end with ]"));
                    return;
                };
                if !SECTIONS.contains(&header) && !header.starts_with("X-") {
                    let near = SECTIONS.into_iter().find(|known| is_near(known, header));
                    let near = near.map(|near| format!(" (is it [{near}]?)")).unwrap_or_default();
                    self.mistakes
                        .push(format!("{name}: no section [{header}] is known{near}, and all of it is ignored"));
                }
                section = Some(header.to_owned());
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
                self.mistakes.push(format!("{name}: {line:?} is no setting, and is ignored"));
                continue;
            };
            let Some(section) = &section else {
                self.mistakes.push(format!("{name}: {} stands before any section, and is ignored", key.trim()));
                continue;
            };
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            if let Some(near) = misspelt(&key).filter(|_| SECTIONS.contains(&section.as_str())) {
                self.mistakes.push(format!("{name}: {key} is no setting (is it {near}?), and is ignored"));
            }
            self.settings.push(Setting { section: section.clone(), key, value });
        }
    }

    /// The last value of a setting; empty if there is none.
    pub fn last(&self, section: &str, key: &str) -> &str {
        self.of(section, key).last().copied().unwrap_or_default()
    }

    /// The values of a setting that may be given more than once: an empty one takes back those before it.
    pub fn values(&self, section: &str, key: &str) -> Vec<&str> {
        self.of(section, key).into_iter().fold(Vec::new(), |mut values, value| {
            match value {
                "" => values.clear(),
                value => values.push(value),
            }
            values
        })
    }

    /// The words of such a setting.
    pub fn words(&self, section: &str, key: &str) -> Vec<&str> {
        self.values(section, key).into_iter().flat_map(str::split_ascii_whitespace).collect()
    }

    fn of(&self, section: &str, key: &str) -> Vec<&str> {
        let settings = self.settings.iter().filter(|one| one.section == section && one.key == key);
        settings.map(|one| one.value.as_str()).collect()
    }

    /// Whether a setting is on.
    pub fn is_on(&self, section: &str, key: &str) -> bool {
        matches!(self.last(section, key).to_ascii_lowercase().as_str(), "1" | "yes" | "y" | "true" | "t" | "on")
    }

    /// What systemd ignores.
    pub fn mistakes(&self) -> &[String] {
        &self.mistakes
    }

    /// Why systemd refuses to load the unit as a service; empty if nothing of the kind is known.
    pub fn refusals(&self) -> Vec<String> {
        let mut refusals = self.refusals.clone();
        let commands = |key| self.values("Service", key).len();
        let (starts, kind) = (commands("ExecStart"), self.kind());
        let does_nothing = self.last("Unit", "SuccessAction").is_empty();
        let oneshot = kind == "oneshot";
        if starts == 0 && does_nothing && (!oneshot || commands("ExecStop") == 0) {
            refusals.push("it has no ExecStart= in [Service]".into());
        }
        if starts > 1 && !oneshot {
            refusals.push("it has more than one ExecStart=, which only Type=oneshot may have".into());
        }
        if oneshot && matches!(self.last("Service", "Restart"), "always" | "on-success") {
            refusals.push(format!("Type=oneshot does not go with Restart={}", self.last("Service", "Restart")));
        }
        if kind == "dbus" && self.last("Service", "BusName").is_empty() {
            refusals.push("Type=dbus needs BusName=".into());
        }
        for key in COMMANDS {
            for value in self.values("Service", key) {
                let (program, _) = program(value);
                if program.is_empty() || (program.contains('/') && !program.starts_with(['/', '%'])) {
                    refusals.push(format!("{key}={value}: it names neither an absolute path nor a program"));
                }
            }
        }
        refusals
    }

    /// The type of the service: what systemd takes where none is said.
    fn kind(&self) -> &str {
        match self.last("Service", "Type") {
            "" if !self.last("Service", "BusName").is_empty() => "dbus",
            kind => kind,
        }
    }

    /// The programs that have to be there for the service to start. Left out are those whose failure is ignored, and
    /// those that are only known once systemd has filled in a name (`%i`), or lie in a root of the unit's own.
    pub fn programs(&self) -> Vec<Program> {
        if ["RootDirectory", "RootImage"].iter().any(|key| !self.last("Service", key).is_empty()) {
            return Vec::new();
        }
        let commands =
            COMMANDS.into_iter().flat_map(|key| self.values("Service", key).into_iter().map(move |v| (key, v)));
        let found = commands.filter_map(|(key, value)| {
            let (program, ignored) = program(value);
            (!ignored && !program.is_empty() && !program.contains('%')).then_some(Program { key, program })
        });
        found.collect()
    }

    /// The users and groups that have to be there, each with its key. Left out are numbers, and names that systemd fills
    /// in or makes itself.
    pub fn accounts(&self) -> Vec<(&'static str, &str)> {
        if self.is_on("Service", "DynamicUser") {
            return Vec::new();
        }
        let one = ["User", "Group"].map(|key| (key, self.last("Service", key)));
        let more = self.words("Service", "SupplementaryGroups").into_iter().map(|group| ("SupplementaryGroups", group));
        one.into_iter().chain(more).filter(|(_, name)| is_a_name(name)).collect()
    }
}

/// Whether this names an account that the machine has to have.
pub fn is_a_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('%') && !name.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lines without comments and blank ones, those that end with a backslash joined to the next.
fn joined(text: &str) -> Vec<String> {
    let (mut lines, mut begun) = (Vec::new(), String::new());
    for line in text.trim_start_matches('\u{feff}').lines() {
        let part = line.trim_start();
        // A comment within a long line is left out, and the line goes on behind it.
        if part.starts_with(['#', ';']) || (part.is_empty() && begun.is_empty()) {
            continue;
        }
        let line = if begun.is_empty() { part } else { line };
        let backslashes = line.bytes().rev().take_while(|byte| *byte == b'\\').count();
        if backslashes % 2 == 1 {
            begun.push_str(&line[..line.len() - 1]);
            begun.push(' ');
            continue;
        }
        begun.push_str(line);
        lines.push(std::mem::take(&mut begun).trim().to_owned());
    }
    lines.push(begun.trim().to_owned());
    lines.retain(|line| !line.is_empty());
    lines
}

/// The program of a command line, and whether its failure is ignored.
fn program(command: &str) -> (String, bool) {
    let mut rest = command.trim_start();
    let mut ignored = false;
    while let Some(prefix) = rest.chars().next().filter(|prefix| *prefix == '-' || PREFIXES.contains(prefix)) {
        ignored |= prefix == '-';
        rest = &rest[1..];
    }
    let quote = rest.chars().next().filter(|first| matches!(first, '"' | '\''));
    let program = match quote {
        Some(quote) => rest[1..].split(quote).next().unwrap_or_default(),
        None => rest.split_ascii_whitespace().next().unwrap_or_default(),
    };
    (program.to_owned(), ignored)
}

/// Settings that keep a service from running as meant if they are misspelt, since they are ignored then.
const IMPORTANT: [&str; 14] = [
    "After",
    "Before",
    "BindsTo",
    "Environment",
    "EnvironmentFile",
    "ExecStart",
    "ExecStartPre",
    "Group",
    "Requires",
    "Restart",
    "Type",
    "User",
    "Wants",
    "WorkingDirectory",
];
/// Settings that differ little from those.
const ALIKE: [&str; 4] = ["BindTo", "ExecStartPost", "ExecStop", "RestartSec"];

/// The setting that was meant, if this one is not known and differs from one in a letter or two.
fn misspelt(key: &str) -> Option<&'static str> {
    if IMPORTANT.contains(&key) || ALIKE.contains(&key) || key.starts_with("X-") {
        return None;
    }
    IMPORTANT.into_iter().find(|known| is_near(known, key))
}

/// Whether a word is another one with one letter changed, missing or too many, two letters exchanged, or other cases.
fn is_near(known: &str, word: &str) -> bool {
    if known.eq_ignore_ascii_case(word) {
        return true;
    }
    let (a, b) = (known.as_bytes(), word.as_bytes());
    let begin = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let end = a[begin..].iter().rev().zip(b[begin..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[begin..a.len() - end], &b[begin..b.len() - end]);
    match (a, b) {
        ([first, second], [one, other]) => (first, second) == (other, one),
        _ => a.len().max(b.len()) <= 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Definition {
        let mut definition = Definition::default();
        definition.add("a.service", text);
        definition
    }

    const GOOD: &str = "# one\n[Unit]\nAfter=b.service\\\n  c.service\n; two\n[Service]\nExecStart=/bin/a \\\n# in between\n  --long\n[X-Own]\nanything=1\n[Install]\nWantedBy=multi-user.target\n";

    #[test]
    fn a_file_is_read_as_systemd_reads_it() {
        let good = read(GOOD);
        assert_eq!((good.refusals(), good.mistakes()), (vec![], &[][..]));
        assert_eq!(good.words("Unit", "After"), ["b.service", "c.service"]);
        assert_eq!(good.last("Service", "ExecStart"), "/bin/a    --long");
        let mut two = good.clone();
        two.add("more.conf", "[Service]\nExecStart=\nExecStart=/bin/b\nUser=tope\n");
        assert_eq!(two.values("Service", "ExecStart"), ["/bin/b"]);
        assert_eq!(two.accounts(), [("User", "tope")]);
        assert_eq!(read("").refusals(), ["it has no ExecStart= in [Service]"]);
    }

    #[test]
    fn what_systemd_refuses_is_known_before() {
        for (text, refused) in [
            ("[Servic]\nExecStart=/bin/a", "it has no ExecStart= in [Service]"),
            ("[Service]\nExceStart=/bin/a", "it has no ExecStart= in [Service]"),
            ("[Service]\nExecStart=/bin/a\nExecStart=/bin/b", "more than one ExecStart="),
            ("[Service]\nExecStart=bin/a", "neither an absolute path"),
            ("[Service]\nType=oneshot\nRestart=always\nExecStart=/bin/a", "Restart=always"),
            ("[Service]\nType=dbus\nExecStart=/bin/a", "BusName="),
            ("[Service\nExecStart=/bin/a", "does not end with ]"),
            ("[Service]\nType=oneshot", "it has no ExecStart= in [Service]"),
        ] {
            let refusals = read(text).refusals();
            assert!(refusals.iter().any(|one| one.contains(refused)), "{text}: {refusals:?}");
        }
        for text in [
            "[Service]\nType=oneshot\nExecStart=/bin/a\nExecStart=/bin/b",
            "[Service]\nType=oneshot\nExecStop=/bin/a",
            "[Service]\nType=oneshot\nRestart=on-failure\nExecStart=/bin/a",
            "[Unit]\nSuccessAction=poweroff\n[Service]\nType=oneshot",
            "[Service]\nExecStart=-@/bin/a argv0",
            "[Service]\nExecStart=a",
            "[Service]\nExecStart=%h/a",
            "[Service]\nExecStart=\"/opt/a b\" c",
            "\u{feff}[Service]\r\nExecStart=/bin/a\r\n",
            "[Service]\nBusName=a.b\nExecStart=/bin/a",
        ] {
            assert_eq!(read(text).refusals(), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn what_systemd_ignores_is_a_mistake() {
        for (text, mistake) in [
            ("[Servic]\n", "no section [Servic] is known (is it [Service]?)"),
            ("[service]\n", "is it [Service]?"),
            ("[Quadlet]\n", "no section [Quadlet] is known,"),
            ("User=a\n", "User stands before any section"),
            ("[Service]\nUser\n", "\"User\" is no setting"),
            ("[Service]\n=a\n", "\"=a\" is no setting"),
            ("[Service]\nUsr=a\n", "Usr is no setting (is it User?)"),
            ("[Service]\nExceStart=/bin/a\n", "is it ExecStart?"),
            ("[Service]\nexecstart=/bin/a\n", "is it ExecStart?"),
        ] {
            let found = read(text).mistakes().join("; ");
            assert!(found.contains(mistake), "{text}: {found}");
        }
        // Settings that this build does not know are systemd's to judge.
        let text =
            "[Service]\nExecStart=/bin/a\nExecReload=x\nUMask=1\nGuessMainPID=no\nNew=1\nX-User=1\nRestartSec=1\n";
        assert_eq!(read(text).mistakes(), [""; 0]);
    }

    #[test]
    fn programs_and_accounts_are_those_without_which_it_does_not_start() {
        let text = "[Service]\nExecStartPre=-/bin/ignored\nExecStartPre=+!/bin/pre x\nExecStart=@/bin/a b\nExecStop=/bin/stop\nExecStartPost=/bin/%i\nExecCondition='/bin/c d' e\nUser=tope\nGroup=100\nSupplementaryGroups=video dialout\n";
        let definition = read(text);
        let programs = definition.programs();
        let programs: Vec<(&str, &str)> = programs.iter().map(|one| (one.key, one.program.as_str())).collect();
        let expected = [("ExecCondition", "/bin/c d"), ("ExecStartPre", "/bin/pre"), ("ExecStart", "/bin/a")];
        assert_eq!(programs, expected);
        let expected = [("User", "tope"), ("SupplementaryGroups", "video"), ("SupplementaryGroups", "dialout")];
        assert_eq!(definition.accounts(), expected);
        assert_eq!(read("[Service]\nDynamicUser=yes\nUser=made").accounts(), []);
        assert_eq!(read("[Service]\nUser=%i\nGroup=0").accounts(), []);
        assert_eq!(read("[Service]\nRootDirectory=/srv\nExecStart=/a").programs(), []);
    }
}
