// The page works without this: it saves the person a click.
document.forms[0].submit();
