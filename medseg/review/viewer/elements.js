// This file finds elements of the page and makes new ones.

const byId = (id) => document.getElementById(id);

// An element with properties; text is always text, never markup.
function element(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}
