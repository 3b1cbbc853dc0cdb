<?php

// Called by Adminer once its own classes are there.
function adminer_object()
{
    return new Adminer\Plugins(array_map(fn ($file) => require $file, glob(__DIR__ . '/plugins-enabled/*.php')));
}

require '/usr/share/adminer/adminer.php';
