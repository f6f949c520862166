//! Reads directories of Markdown files. What cannot be read is reported and passed over; it never stops the others.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::digest_of;
use crate::clock::Wall;
use crate::dialect::documents::{self, markdown};
use crate::limits::{FILE_BYTES_MAX, FILE_DEPTH_MAX};

#[derive(Debug, Default)]
pub struct Scan {
    pub files: Vec<documents::Import>,
    /// Each with why it was passed over, in words for whoever keeps the files.
    pub skipped: Vec<String>,
}

/// Every `*.md` below the roots. Hidden files and directories are not looked at: editors and version control keep their
/// own things there. Symbolic links to directories are not followed, so that a loop of them cannot trap us.
pub fn scan(roots: &[String]) -> Scan {
    let mut scan = Scan::default();
    for root in roots {
        if let Err(error) = fs::create_dir_all(root) {
            scan.skipped.push(format!("{root}: {error}"));
            continue;
        }
        walk(root, 0, &mut scan);
    }
    scan
}

fn walk(directory: &str, depth: usize, scan: &mut Scan) {
    if depth > FILE_DEPTH_MAX {
        scan.skipped.push(format!("{directory}: nested deeper than {FILE_DEPTH_MAX} directories"));
        return;
    }
    let mut names: Vec<(String, bool)> = Vec::new();
    match fs::read_dir(directory) {
        Err(error) => scan.skipped.push(format!("{directory}: {error}")),
        Ok(entries) => {
            for entry in entries {
                match entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?))) {
                    Ok((name, kind)) => match name.to_str() {
                        Some(name) if name.starts_with('.') => {}
                        Some(name) => names.push((name.to_owned(), kind.is_dir())),
                        None => scan.skipped.push(format!("{directory}/{}: the name is not UTF-8", name.display())),
                    },
                    Err(error) => scan.skipped.push(format!("{directory}: {error}")),
                }
            }
        }
    }
    // The file system's order is nobody's; the same tree gives the same events.
    names.sort_unstable();
    for (name, is_directory) in names {
        if is_directory {
            walk(&format!("{directory}/{name}"), depth + 1, scan);
        } else if let Some(stem) = name.strip_suffix(".md") {
            match read(directory, stem) {
                Ok(file) => scan.files.push(file),
                Err(error) => scan.skipped.push(format!("{directory}/{name}: {error}")),
            }
        }
    }
}

fn read(directory: &str, stem: &str) -> io::Result<documents::Import> {
    let path = format!("{directory}/{stem}.md");
    let path = Path::new(&path);
    let about = fs::metadata(path)?;
    if !about.is_file() {
        // A pipe of that name would keep us waiting for a writer.
        return Err(io::Error::other("not a regular file"));
    }
    if about.len() > FILE_BYTES_MAX as u64 {
        return Err(io::Error::other(format!("{} bytes; the limit is {FILE_BYTES_MAX}", about.len())));
    }
    let bytes = fs::read(path)?;
    let digest = digest_of(&bytes);
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8 text"))?;
    let parsed = markdown::parse(&text);
    for warning in &parsed.warnings {
        log::warn!("{}: {warning}", path.display());
    }
    Ok(documents::Import {
        directory: directory.to_owned(),
        name: stem.to_owned(),
        content: parsed.content,
        description: parsed.description,
        tags: parsed.tags,
        created_at: about.created().ok().and_then(wall),
        updated_at: about.modified().ok().and_then(wall),
        digest,
    })
}

fn wall(at: SystemTime) -> Option<Wall> {
    at.duration_since(UNIX_EPOCH).ok().map(|since| Wall(since.as_micros() as i64))
}
