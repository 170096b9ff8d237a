// The page's state, what changes it, and the address that brings it back.

const answers = new Answers(readJson("answers-data"));
const state = { precision: 0, problem: 0, left: 0, right: 0 };

/** The most frequent answer, and the configuration that leaves it first. */
function tellingPair(problem, precision) {
  const groups = answers.groups(problem, precision);
  const slots = groups.map(({ configurations }) => answers.slot(precision, configurations[0]));
  if (!slots.length) return [answers.slot(precision, 0), answers.slot(precision, 0)];
  if (slots.length === 1) {
    const [first, second = first] = groups[0].configurations;
    return [answers.slot(precision, first), answers.slot(precision, second)];
  }
  const [left, ...others] = slots;
  const at = (slot) => answers.divergence(problem, left, slot);
  return [left, others.reduce((best, slot) => (at(slot) < at(best) ? slot : best))];
}

function show() {
  document.getElementById("precision").value = String(state.precision);
  list.show(state.precision, state.problem);
  if (answers.problems.length) comparison.show(state.problem, [state.left, state.right]);
}

function choose(problem, precision = state.precision) {
  const [left, right] = tellingPair(problem, precision);
  Object.assign(state, { problem, precision, left, right });
  show();
  remember();
}

function slotName(slot) {
  const { precisions, configurations } = answers;
  const precision = Math.floor(slot / configurations.length);
  return `${precisions[precision]}/${configurations[slot % configurations.length].label}`;
}

function slotNamed(name) {
  const count = answers.precisions.length * answers.configurations.length;
  for (let slot = 0; slot < count; slot += 1) if (slotName(slot) === name) return slot;
  return -1;
}

/** Keep the comparison in the address, so that it can be sent to somebody. */
function remember() {
  const query = new URLSearchParams({
    problem: answers.problems[state.problem].id,
    precision: answers.precisions[state.precision],
    left: slotName(state.left),
    right: slotName(state.right),
  });
  history.replaceState(null, "", `#${query}`);
}

/** Show what the address asks for; false if it asks for nothing that is here. */
function recall() {
  const query = new URLSearchParams(location.hash.slice(1));
  const problem = answers.problems.findIndex(({ id }) => id === query.get("problem"));
  const precision = answers.precisions.indexOf(query.get("precision"));
  if (problem < 0 || precision < 0) return false;
  const [left, right] = [slotNamed(query.get("left")), slotNamed(query.get("right"))];
  if (left < 0 || right < 0) choose(problem, precision);
  else Object.assign(state, { problem, precision, left, right });
  show();
  return true;
}

function toBrowser() {
  document.getElementById("divergences").scrollIntoView();
}

const list = new ProblemList(answers, (problem) => choose(problem));
const comparison = new Comparison(answers, (side, slot) => {
  state[side] = slot;
  show();
  remember();
});
const figures = new Figures(readJson("figures-data"), (problem, precision) => {
  choose(problem, precision);
  toBrowser();
});

document.getElementById("precision").addEventListener("change", (event) => {
  choose(state.problem, Number(event.target.value));
});
document.getElementById("previous").addEventListener("click", () => list.step(-1));
document.getElementById("next").addEventListener("click", () => list.step(1));
document.getElementById("swap").addEventListener("click", () => {
  [state.left, state.right] = [state.right, state.left];
  show();
  remember();
});
addEventListener("hashchange", () => recall() && toBrowser());

startTheme(() => figures.draw());
startPrinting((printing) => figures.print(printing));
if (recall()) toBrowser();
else {
  list.show(0, 0);
  const problem = list.head();
  const [left, right] = tellingPair(problem, 0);
  Object.assign(state, { problem, left, right });
  show();
}
