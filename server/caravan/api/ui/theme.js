// Light or dark: the system's choice, until the user makes another one.

const ITEM = 'caravan.theme'; // of localStorage
const DARK = matchMedia('(prefers-color-scheme: dark)');
const root = document.documentElement;

/** Goes from the theme that is shown to the other one. */
export function toggleTheme() {
  const shown = root.dataset.theme ?? (DARK.matches ? 'dark' : 'light');
  const next = shown === 'dark' ? 'light' : 'dark';
  root.dataset.theme = next;
  try {
    localStorage.setItem(ITEM, next);
  } catch {
    // Browsers may forbid storage: then it lasts as long as the page.
  }
}

function stored() {
  try {
    return localStorage.getItem(ITEM);
  } catch {
    return null;
  }
}

const theme = stored();
if (theme === 'light' || theme === 'dark') root.dataset.theme = theme;
