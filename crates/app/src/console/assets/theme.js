// Before the page is drawn, so that it does not flash in the other colours.
{
  let chosen = null;
  try { chosen = localStorage.getItem("tidewheel-theme"); } catch { /* storage may be forbidden */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
