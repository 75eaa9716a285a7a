//! Every page on every screen: layout, contrast, accessible names, and a screenshot.

use super::browser::{Browser, Screen};

/// Pages, with the selector of a completely loaded page.
pub const PAGES: [(&str, &str, &str); 7] = [
    ("overview", "#/", ".verdict[data-state] ~ .charts .line"),
    ("indexes", "#/indexes", ".indexes tbody tr"),
    ("index", "#/indexes/documents", ".generations tbody tr, .empty h2"),
    ("dead-letters", "#/dead-letters", ".letters tbody tr, .empty h2"),
    ("search", "#/search?q=parcel", ".hit, .problem"),
    ("document", "#/document?id=7&namespace=shop.tickets", ".hops, .problem"),
    ("replays", "#/replays", ".replay, .empty h2"),
];

/// A desktop, and the narrowest phone.
const SCREENS: [(&str, u32, u32); 2] = [("desk", 1440, 900), ("phone", 360, 740)];

/// Finds texts with too little contrast: WCAG 2.2 requires 4.5:1, and 3:1 for large text.
const FAINT: &str = r#"(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const colour = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const part = (v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; return .2126 * part(r) + .7152 * part(g) + .0722 * part(b); };
  const ground = (element) => { for (let e = element; e; e = e.parentElement) { const style = getComputedStyle(e); if (style.backgroundImage.includes('gradient')) return null; const c = colour(style.backgroundColor); if (c[3] === 255) return c; if (c[3] > 0) return null; } return [255, 255, 255]; };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = texts.nextNode();) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility({visibilityProperty: true}) || element.closest('.sr, .skip, noscript, option, :disabled')) continue;
    const style = getComputedStyle(element);
    const behind = ground(element);
    if (!behind) continue;
    const [a, b] = [light(colour(element.namespaceURI.endsWith('svg') ? style.fill : style.color)), light(behind)].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24 || parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700;
    const ratio = (a + .05) / (b + .05);
    if (ratio < (large ? 3 : 4.5)) found.push(`${node.data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
})()"#;

/// Finds elements that overflow the page, and controls without an accessible name.
const MISSHAPEN: &str = r#"(() => {
  const width = document.documentElement.clientWidth;
  const wide = document.documentElement.scrollWidth > width
    ? [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > width + 1).slice(0, 5).map((e) => `sticks out: ${e.className || e.tagName}`) : [];
  const named = (e) => e.innerText?.trim() || e.ariaLabel || e.labels?.length || e.querySelector('img[alt]:not([alt=""])');
  const nameless = [...document.querySelectorAll('a, button, input, select, textarea, summary')].filter((e) => e.checkVisibility() && !named(e)).map((e) => `nameless: ${e.outerHTML.slice(0, 80)}`);
  return [...wide, ...nameless];
})()"#;

/// Opens every page on every screen in both themes.
pub async fn all(browser: &Browser, base: &str, prefix: &str) {
    let folder = std::env::var_os("TIDEWHEEL_SCREENSHOTS").filter(|folder| !folder.is_empty());
    for (screen_name, width, height) in SCREENS {
        for theme in ["light", "dark"] {
            let screen = Screen { width, height, theme };
            browser.show_on(screen).await;
            for (name, path, complete) in PAGES {
                let place = format!("{prefix}{name}-{screen_name}-{theme}");
                browser.open(&format!("{base}/{path}")).await;
                browser.until(&place, &format!("document.querySelector({complete:?}) !== null")).await;
                browser
                    .until(
                        &format!("{place} is live"),
                        "document.querySelector('.connection').dataset.state === 'live'",
                    )
                    .await;
                assert_eq!(browser.value(MISSHAPEN).await, serde_json::json!([]), "{place}");
                assert_eq!(browser.value(FAINT).await, serde_json::json!([]), "{place}");
                if let Some(folder) = &folder {
                    std::fs::create_dir_all(folder).expect("a directory for screenshots");
                    let file = std::path::Path::new(folder).join(format!("{place}.png"));
                    std::fs::write(file, browser.picture(screen).await).expect("a screenshot");
                }
            }
        }
    }
    browser.show_on(Screen { width: 1440, height: 900, theme: "light" }).await;
}
