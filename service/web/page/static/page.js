// What htmx does not do: show local times beside UTC, keep opened tables open, and handle keys.
"use strict";

const local = (element) => {
  const at = new Date(element.dateTime);
  if (element.dataset.local || !element.dateTime || at.getTimezoneOffset() === 0) return;
  element.dataset.local = "yes";
  const short = element.textContent.length < 6; // in the table of a chart, hours and minutes
  const options = short ? { timeStyle: "short" } : { dateStyle: "short", timeStyle: "medium" };
  const beside = document.createElement("span");
  beside.className = "age";
  beside.textContent = ` (${at.toLocaleString(undefined, options)} local)`;
  element.append(beside);
};
const everyTime = () => document.querySelectorAll("main time").forEach(local);

let opened = [];
document.addEventListener("htmx:beforeSwap", () => {
  opened = [...document.querySelectorAll("main details[id][open]")].map((one) => one.id);
});
document.addEventListener("htmx:afterSwap", () => {
  opened.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
  everyTime();
});

const keys = document.getElementById("keys");
const used = document.getElementById("keys-on");
const OFF = "levelsync-keys-off";
let afterG = -Infinity; // when g was pressed

const search = () => {
  const field = document.querySelector("[data-search]");
  if (field) field.focus();
  else location.assign("/page/users");
};
const go = (letter) => {
  const places = [...keys.querySelectorAll("[data-goes]")];
  const found = places.find((one) => one.previousElementSibling.lastElementChild.textContent === letter);
  if (found) location.assign(found.dataset.goes);
};
const pressed = (event) => {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (typing || event.ctrlKey || event.altKey || event.metaKey || !used.checked) return;
  const following = event.timeStamp - afterG < 1500;
  afterG = -Infinity;
  if (following) go(event.key);
  else if (event.key === "g") afterG = event.timeStamp;
  else if (event.key === "?") keys.showModal();
  else if (event.key === "/") search();
  else return;
  event.preventDefault();
};

everyTime();
if (keys) {
  const button = document.getElementById("show-keys");
  button.hidden = false;
  button.addEventListener("click", () => keys.showModal());
  used.checked = localStorage.getItem(OFF) === null;
  used.addEventListener("change", () => (used.checked ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "yes")));
  document.addEventListener("keydown", pressed);
}
