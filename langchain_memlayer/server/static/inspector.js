// What the pages cannot do without a script: the date of the slider, and keys. Everything else works without it.
"use strict";

function showDay(slider) {
  const output = document.querySelector(`output[for="${slider.id}"]`);
  const isNow = slider.value === slider.max;
  output.textContent = isNow ? output.dataset.now : new Date(slider.value * 86400000).toISOString().slice(0, 10);
}

document.addEventListener("input", (event) => {
  if (event.target.matches('input[type="range"]')) showDay(event.target);
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  const field = document.querySelector("[data-shortcut]");
  if (field && event.key === field.dataset.shortcut && !typing) {
    event.preventDefault();
    field.focus();
  }
  const question = document.querySelector("#question > form");
  if (question && event.key === "Escape") question.remove();
});

document.addEventListener("click", (event) => {
  const cancel = event.target.closest("#question a.button");
  const question = cancel && document.querySelector("article #question > form");
  if (question) {
    event.preventDefault();
    question.remove();
  }
});

document.addEventListener("htmx:afterSettle", (event) => {
  const first = event.target.querySelector && event.target.querySelector("#question [autofocus], form [autofocus]");
  if (first) first.focus();
});
