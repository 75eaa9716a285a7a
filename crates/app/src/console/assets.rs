//! Static files of the console, embedded in the binary and served as they are, without a build step.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::api_error::ApiError;

struct Asset {
    path: &'static str,
    kind: &'static str,
    content: &'static str,
}

macro_rules! assets {
    ($($path:literal: $kind:ident;)*) => {
        const ASSETS: &[Asset] = &[$(Asset {
            path: concat!("/", $path),
            kind: $kind,
            content: include_str!(concat!("assets/", $path)),
        }),*];
    };
}

const CSS: &str = "text/css; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

assets! {
    "index.html": HTML;
    "app.css": CSS;
    "icon.svg": SVG;
    "api.js": JS;
    "chart.js": JS;
    "dialog.js": JS;
    "dom.js": JS;
    "format.js": JS;
    "json.js": JS;
    "links.js": JS;
    "live.js": JS;
    "main.js": JS;
    "pages/document.js": JS;
    "pages/indexes.js": JS;
    "pages/letters.js": JS;
    "pages/overview.js": JS;
    "pages/replays.js": JS;
    "pages/search.js": JS;
    "pipeline.js": JS;
    "state.js": JS;
    "theme.js": JS;
    "verdict.js": JS;
}

/// Serves a file or 404. Browsers cache files and revalidate them by ETag.
pub(super) async fn serve(request: Request) -> Response {
    let path = request.uri().path();
    let path = if path == "/" { "/index.html" } else { path };
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == path) else {
        return ApiError::new(StatusCode::NOT_FOUND, format!("{path} not found")).into_response();
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return super::api_error::wrong_method(request).await.into_response();
    }
    let tag = tag(asset.content);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, HeaderValue::try_from(&tag).expect("hexadecimal digits are allowed")),
    ];
    let known = request.headers().get(header::IF_NONE_MATCH).is_some_and(|known| known == tag.as_str());
    if known { (StatusCode::NOT_MODIFIED, headers).into_response() } else { (headers, asset.content).into_response() }
}

/// A 64-bit hash suffices: collisions are improbable, and no attacker chooses the contents.
fn tag(content: &str) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_is_served_and_references_no_other_host() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/console/assets");
        let mut files = Vec::new();
        for folder in [root.clone(), root.join("pages")] {
            let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
            files.extend(entries.filter(|path| path.is_file()));
        }
        for file in &files {
            let path = format!("/{}", file.strip_prefix(&root).unwrap().display());
            assert!(ASSETS.iter().any(|asset| asset.path == path), "{path} is missing from the list");
        }
        assert_eq!(files.len(), ASSETS.len());
        for asset in ASSETS {
            let others = asset.content.replace("http://www.w3.org/", "");
            assert!(!others.contains("http://") && !others.contains("https://"), "{} references a host", asset.path);
            assert!(!asset.content.contains("innerHTML"), "{} parses text as markup", asset.path);
        }
    }
}
