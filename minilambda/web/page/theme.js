"use strict";

// Runs before the page is drawn, so that it never shows in the wrong colours first.
{
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = "";
  try {
    chosen = localStorage.getItem("minilambda-theme") || "";
  } catch {
    chosen = ""; // storage is forbidden here: the choice lasts as long as the page
  }
  const current = () => chosen || (dark.matches ? "dark" : "light");

  function show() {
    document.documentElement.dataset.theme = current();
    const button = document.getElementById("theme");
    if (!button) return;
    const other = current() === "dark" ? "Light" : "Dark";
    button.textContent = other;
    button.setAttribute("aria-label", `${other} colours`);
  }

  function toggle() {
    const other = current() === "dark" ? "light" : "dark";
    chosen = other === (dark.matches ? "dark" : "light") ? "" : other; // as the system has it: follow the system
    try {
      if (chosen) localStorage.setItem("minilambda-theme", chosen);
      else localStorage.removeItem("minilambda-theme");
    } catch {
      // the same
    }
    show();
  }

  show();
  dark.addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", toggle);
  });
}
