// Making elements. Text from records only ever becomes text nodes and attribute values.

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const SIGNS = { " ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍", "": "∅" };

/**
 * The text of pieces in a row. A byte that is no whole character by itself comes as U+DC80 to
 * U+DCFF; side by side they may make one.
 */
function joinPieces(pieces) {
  return pieces.join("").replace(/[\uDC80-\uDCFF]+/gu, (run) => {
    const bytes = Uint8Array.from(run, (unit) => unit.charCodeAt(0) - 0xdc00);
    return new TextDecoder().decode(bytes);
  });
}

function hexadecimal(code, digits) {
  return code.toString(16).toUpperCase().padStart(digits, "0");
}

/** A token's text with what is invisible made visible. */
function visiblePiece(piece) {
  if (piece in SIGNS) return SIGNS[piece];
  return piece
    .replace(/^ /, "␣")
    .replace(/[\n\t\r]/g, (character) => SIGNS[character])
    .replace(/[\uDC80-\uDCFF]/gu, (unit) => `⟨${hexadecimal(unit.charCodeAt(0) - 0xdc00, 2)}⟩`)
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c) => `U+${hexadecimal(c.codePointAt(0), 4)}`);
}

/** Letters for the distinct answers of a problem: A, B, ..., Z, AA. */
function answerLetter(rank) {
  const last = String.fromCharCode(65 + (rank % 26));
  return rank < 26 ? last : answerLetter(Math.floor(rank / 26) - 1) + last;
}

/** Colour class of the answer of a rank; ranks past the fourth share one. */
function answerClass(rank) {
  return `answer-${Math.min(rank, 4)}`;
}

function percentText(probability) {
  return `${(100 * probability).toFixed(3)} %`;
}

function countText(count, noun) {
  return `${count.toLocaleString("en-GB")} ${noun}${count === 1 ? "" : "s"}`;
}
