// The list of problems: sorted, filtered, and drawn only where it is scrolled to.

const ROW_HEIGHT = 46;
const ROWS_BEYOND = 6;

const last = (value) => (value === null ? Infinity : value);
const SORTS = {
  earliest: (a, b) => last(a.index) - last(b.index) || a.problem - b.problem,
  answers: (a, b) => b.groups.length - a.groups.length || SORTS.earliest(a, b),
  length: (a, b) => b.lengthSpread - a.lengthSpread || a.problem - b.problem,
  order: (a, b) => a.problem - b.problem,
};

/** What the list says of a problem under one precision. */
function summarise(answers, problem, precision) {
  const groups = answers.groups(problem, precision);
  const { lengths } = answers.problems[problem];
  const used = groups.map((group) => lengths[group.place]);
  const answered = groups.flatMap((group) => group.configurations);
  return {
    problem,
    groups,
    index: answers.divergenceIndex(problem, groups),
    lengthSpread: used.length ? Math.max(...used) - Math.min(...used) : 0,
    right: answered.filter((c) => answers.correct(problem, answers.slot(precision, c))).length,
    answered: answered.length,
  };
}

class ProblemList {
  constructor(answers, picked) {
    this.answers = answers;
    this.picked = picked;
    this.box = document.getElementById("problems");
    this.rows = document.getElementById("problem-rows");
    this.count = document.getElementById("problem-count");
    this.controls = ["search", "sort", "diverging"].map((id) => document.getElementById(id));
    for (const control of this.controls) control.addEventListener("input", () => this.arrange());
    this.box.addEventListener("scroll", () => this.draw(), { passive: true });
    this.box.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  show(precision, problem) {
    if (precision !== this.precision) {
      this.precision = precision;
      this.summaries = this.answers.problems.map((_, p) => summarise(this.answers, p, precision));
      this.chosen = problem;
      this.arrange();
    }
    this.chosen = problem;
    this.reveal();
    this.draw();
  }

  /** The problem a reader sees first: that at the head of the list. */
  head() {
    return this.order.length ? this.order[0].problem : 0;
  }

  arrange() {
    const [search, sort, diverging] = this.controls;
    const wanted = search.value.trim().toLowerCase();
    const { problems, precisions } = this.answers;
    this.order = this.summaries
      .filter(({ problem, index }) => {
        if (diverging.checked && index === null) return false;
        const { id, question } = problems[problem];
        return !wanted || `${id}\n${question}`.toLowerCase().includes(wanted);
      })
      .sort(SORTS[sort.value]);
    const parted = this.order.filter(({ index }) => index !== null).length;
    this.count.textContent = this.order.length
      ? `${countText(this.order.length, "problem")} shown, ${parted} diverging under ${precisions[this.precision]}`
      : "No problem fits the filter.";
    this.rows.style.height = `${this.order.length * ROW_HEIGHT}px`;
    this.reveal();
    this.draw();
  }

  position() {
    return this.order.findIndex(({ problem }) => problem === this.chosen);
  }

  reveal() {
    const at = this.position();
    if (at < 0) return;
    const top = at * ROW_HEIGHT;
    const { scrollTop, clientHeight } = this.box;
    if (top < scrollTop) this.box.scrollTop = top;
    else if (top + ROW_HEIGHT > scrollTop + clientHeight) {
      this.box.scrollTop = top + ROW_HEIGHT - clientHeight;
    }
  }

  draw() {
    if (!this.order) return;
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW_HEIGHT) - ROWS_BEYOND);
    const visible = Math.ceil(this.box.clientHeight / ROW_HEIGHT) + 2 * ROWS_BEYOND;
    const shown = this.order.slice(first, first + visible);
    this.rows.replaceChildren(...shown.map((summary, i) => this.row(summary, first + i)));
    if (this.position() < 0) this.box.removeAttribute("aria-activedescendant");
    else this.box.setAttribute("aria-activedescendant", `problem-${this.chosen}`);
  }

  row(summary, at) {
    const { problem, index, right, answered } = summary;
    const row = element(
      "div",
      {
        id: `problem-${problem}`,
        class: "problem",
        role: "option",
        "aria-selected": String(problem === this.chosen),
        "aria-posinset": at + 1,
        "aria-setsize": this.order.length,
        onclick: () => this.picked(problem),
      },
      element("bdi", { class: "problem-id" }, this.answers.problems[problem].id),
      element("span", { class: "problem-index" }, index === null ? "all equal" : `token ${index}`),
      this.strip(summary),
      element("span", { class: "problem-right" }, `${right} of ${answered} right`),
    );
    row.style.top = `${at * ROW_HEIGHT}px`;
    return row;
  }

  /** One square a configuration, coloured by which of the answers it gave. */
  strip({ groups }) {
    const rank = new Map(groups.flatMap((g, r) => g.configurations.map((c) => [c, r])));
    const squares = this.answers.configurations.map((_, c) =>
      element("i", { class: rank.has(c) ? answerClass(rank.get(c)) : "answer-absent" }),
    );
    return element("span", { class: "strip", "aria-hidden": "true" }, ...squares);
  }

  step(by) {
    if (!this.order.length) return;
    const at = this.position();
    const next = at < 0 ? 0 : Math.min(this.order.length - 1, Math.max(0, at + by));
    this.picked(this.order[next].problem);
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW_HEIGHT) - 1);
    const steps = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: -Infinity,
      End: Infinity,
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.step(steps[event.key]);
  }
}
