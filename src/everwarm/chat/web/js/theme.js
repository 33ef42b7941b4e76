// Sets the theme before the first paint, so that a dark page never flashes white. A classic script.
"use strict";
try {
  const theme = localStorage.getItem("everwarm.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // storage may be refused: then the system's choice holds
}
