// Package browser has the tests of lockweb's page in a real browser, headless
// Chromium, which they find on the PATH or by SWANLOCK_CHROMIUM. It is a module
// of its own, so that what drives the browser is nobody else's dependency.
//
// SWANLOCK_SCREENSHOTS names a folder for pictures of every state of the page.
package browser
