// Applied before the first paint, so that the page does not flash in the wrong theme.
{
  let chosen = null;
  try { chosen = localStorage.getItem("tidewheel-theme"); } catch { /* storage may be forbidden */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
